from __future__ import annotations

import httpx
import pytest

from service.api.partial_content import is_had, wanted_part
from service.errors import UnsatisfiableRangeError
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem

ETAG = '"aa"'


@pytest.fixture(scope="module")
def engine(server: Server) -> str:
    """Return the address of an engine."""
    return f"/v1/jobs/{server.wait(server.submit(trials=0)['id'])['id']}/engine"


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-", range(100)),
        ("bytes=40-", range(40, 100)),
        ("bytes=40-49", range(40, 50)),
        ("bytes=99-99", range(99, 100)),
        ("bytes=90-1000000000000000", range(90, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-1000", range(100)),
        (" Bytes = 1 - 2 ", range(1, 3)),
        ("bytes=0-1,5-6", None),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("bytes=\u0665-", None),
        ("lines=1-2", None),
        ("", None),
    ],
)
def test_one_range_is_a_part_and_all_else_the_whole(header: str, part: range | None) -> None:
    assert wanted_part({"range": header}, ETAG, 100) == part


@pytest.mark.parametrize(("header", "size_bytes"), [("bytes=100-", 100), ("bytes=500-600", 100), ("bytes=-0", 100), ("bytes=0-", 0)])
def test_bytes_that_the_file_lacks_are_refused(header: str, size_bytes: int) -> None:
    with pytest.raises(UnsatisfiableRangeError) as caught:
        wanted_part({"range": header}, ETAG, size_bytes)
    assert caught.value.size_bytes == size_bytes


def test_a_part_of_another_file_is_not_sent() -> None:
    assert wanted_part({"range": "bytes=1-", "if-range": ETAG}, ETAG, 9) == range(1, 9)
    for other in ('"bb"', 'W/"aa"', "Mon, 30 Nov 2026 10:00:00 GMT"):
        assert wanted_part({"range": "bytes=1-", "if-range": other}, ETAG, 9) is None


@pytest.mark.parametrize(
    ("header", "had"), [(ETAG, True), ('"bb", W/"aa"', True), ("*", True), ('"bb"', False), ("aa", False), ("", False)]
)
def test_a_file_that_the_caller_has_is_known_by_its_etag(header: str, had: bool) -> None:
    assert is_had({"if-none-match": header}, ETAG) is had


def test_a_download_goes_on_where_it_broke_off(server: Server, engine: str) -> None:
    whole = server.client.get(engine)
    assert whole.headers["accept-ranges"] == "bytes"
    rest = server.client.get(engine, headers={"Range": "bytes=7-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, whole.content[7:])
    assert rest.headers["content-range"] == f"bytes 7-{len(whole.content) - 1}/{len(whole.content)}"
    assert rest.headers["content-length"] == str(len(whole.content) - 7)
    assert rest.headers["etag"] == whole.headers["etag"]


def test_bytes_behind_the_end_are_refused_with_the_size(server: Server, engine: str) -> None:
    answer = server.client.get(engine, headers={"Range": "bytes=100000-"})
    assert_problem(answer, 416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(server.client.get(engine).content)}"


def test_what_the_caller_has_is_not_sent_again(server: Server, engine: str) -> None:
    answer = server.client.get(engine, headers={"If-None-Match": server.client.get(engine).headers["etag"]})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize("path", ["engine", "artifacts", "artifacts/report.html", "log", "events", ""])
def test_head_is_get_without_the_body(server: Server, engine: str, path: str) -> None:
    path = engine.removesuffix("/engine") + (f"/{path}" if path else "")
    whole, head = server.client.get(path), server.client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"") == (200, b"")
    ours = ("etag", "content-type", "content-length", "content-security-policy")
    assert [head.headers.get(name) for name in ours] == [whole.headers.get(name) for name in ours]


def test_head_of_the_events_of_a_job_that_runs_does_not_wait(server: Server) -> None:
    job_id = server.submit(trials=1, seconds=20)["id"]
    assert server.client.head(f"/v1/jobs/{job_id}/events", timeout=5).status_code == 200
    server.client.post(f"/v1/jobs/{job_id}/cancel")


def test_head_of_what_is_not_there_says_so(server: Server) -> None:
    assert server.client.head("/v1/jobs/7").status_code == 404
    assert server.client.head("/nowhere").status_code == 404
    answer: httpx.Response = server.client.head("/healthz")
    assert answer.status_code == 200


def test_head_is_no_download_in_the_audit_log(server: Server) -> None:
    job_id = server.wait(server.submit(trials=0)["id"])["id"]
    server.client.head(f"/v1/jobs/{job_id}/engine")
    entries = [entry for entry in server.client.get("/v1/audit").json()["entries"] if entry["job"] == job_id]
    assert [entry["action"] for entry in entries] == ["submit"]
