from __future__ import annotations

import json
import re

import pytest

from service.errors import InvalidRequestError
from service.jobs.records import Webhook
from service.jobs.upkeep.webhook_request import schema, webhook_from_text
from tests.fakes import fake_model
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem

URL = "https://example.org/hook"


@pytest.mark.parametrize("secret", [None, "a secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_webhook_is_read(secret: str | None) -> None:
    assert webhook_from_text(json.dumps({"url": URL, "secret": secret}), any_address=False) == Webhook(URL, secret)
    assert webhook_from_text(None, any_address=False) is None


def test_secret_is_in_no_words_about_a_webhook() -> None:
    assert "hidden" not in repr(Webhook(URL, "hidden"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[" * 4000,
        "null",
        '"https://example.org"',
        "{}",
        '{"url": 3}',
        json.dumps({"url": URL, "more": 1}),
        f'{{"url": "{URL}", "secret": "a", "secret": "b"}}',
        json.dumps({"url": URL, "secret": ""}),
        json.dumps({"url": URL, "secret": 7}),
        json.dumps({"url": URL, "secret": "x" * 300}),
        json.dumps({"url": URL, "secret": "a\nb"}),
        json.dumps({"url": URL, "secret": "whsec_%"}),
        json.dumps({"url": "http://127.0.0.1/"}),
        json.dumps({"url": URL, "secret": "x" * 5000}),
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="webhook"):
        webhook_from_text(text, any_address=False)


def test_job_with_a_webhook_inside_is_refused_and_one_outside_is_noted(server: Server) -> None:
    files = {"model": fake_model(trials=0), "calibration": b"numbers"}
    answer = server.client.post("/v1/jobs", files=files, data={"webhook": '{"url": "http://169.254.169.254/latest"}'})
    assert_problem(answer, 422, "invalid-request")
    ids = {f"{name}_id": server.client.post("/v1/files", content=data).json()["id"] for name, data in files.items()}
    headers = {"Idempotency-Key": "told"}
    sent = {**ids, "webhook": {"url": "https://does-not-exist.invalid/", "secret": "s"}}
    answer = server.client.post("/v1/jobs", json=sent, headers=headers)
    assert answer.status_code == 202, answer.text
    server.wait(answer.json()["id"])
    assert server.client.post("/v1/jobs", json=sent, headers=headers).json()["id"] == answer.json()["id"]
    assert_problem(server.client.post("/v1/jobs", json=ids, headers=headers), 422, "invalid-request")


@pytest.mark.parametrize(
    "secret", ["a", "w", "whsec", "whsec_", "whsec_MTIz", "whsec_M", "whsec_!!!!", "words of mine", "wood", "whsek_1", "\x7f", "é"]
)
def test_description_knows_the_secrets_that_are_taken(secret: str) -> None:
    properties = schema()["properties"]
    assert isinstance(properties, dict)
    described = re.search(properties["secret"]["pattern"], secret) is not None
    try:
        webhook_from_text(json.dumps({"url": "https://example.org/hook", "secret": secret}), any_address=False)
    except InvalidRequestError:
        assert not described
    else:
        assert described or not secret.isascii()  # letters beyond ASCII are taken too
