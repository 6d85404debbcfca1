from __future__ import annotations

import pytest

from service.api.every_answer import Answered
from tests.service.conftest import Server


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/healthz"), ("GET", "/v1/jobs"), ("GET", "/nothing"), ("PUT", "/v1/jobs"), ("GET", "/docs"), ("GET", "/v1/jobs/none/events")],
)
def test_every_answer_limits_what_a_browser_does_with_it(server: Server, method: str, path: str) -> None:
    headers = server.client.request(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"


def test_an_error_nobody_expected_has_the_headers_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(type(server.deps.store), "rows", broken)
    answer = server.client.get("/v1/jobs")
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")


def test_a_report_may_be_shown_inside_our_own_page_only(server: Server) -> None:
    job = server.wait(server.submit(trials=0)["id"])
    headers = server.client.get(f"/v1/jobs/{job['id']}/artifacts/report.html").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["content-security-policy"].endswith("frame-ancestors 'self'")
    assert "x-frame-options" not in headers


def test_kinds_of_answers_are_told_apart() -> None:
    assert Answered("GET", "/v1/jobs", 200) < Answered("GET", "/v1/jobs", 404)
