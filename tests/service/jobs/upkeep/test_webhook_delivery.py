from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from service.access.key_places import KEY_NAME
from service.errors import InvalidRequestError
from service.jobs.records import Webhook
from service.jobs.resources import Deps
from service.jobs.upkeep.webhook_delivery import WAIT_SECONDS, deliver_due, keep_encrypted, poster, signature
from service.settings import Settings
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job
from tests.service.launch_server import fake_deps

Message = tuple[str, bytes, Mapping[str, str]]
URL = "https://example.org/hook"


class Receiver:
    """Takes messages and answers with the next status, the last one again and again."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.taken: list[Message] = []

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.taken.append((url, body, headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(tmp_path: Path, clock: FakeClock) -> Iterator[Deps]:
    deps = fake_deps(Settings(data_dir=tmp_path / "data"), tmp_path / "record", clock=clock)
    yield deps
    deps.close()


def ended(deps: Deps, secret: str | None = None) -> None:
    deps.store.create(new_job("one"), Webhook(URL, secret))
    deps.store.start("one")
    deps.store.succeed("one", {"outcome": "improved", "speedup": 1.5, "long": "x" * 9000}, "engine.onnx", {})


def test_nobody_is_told_before_the_end_and_then_once(deps: Deps) -> None:
    receiver = Receiver(200)
    deps.store.create(new_job("one"), Webhook(URL))
    deps.store.create(new_job("silent"))
    deps.store.cancel("silent")
    deliver_due(deps, receiver)
    assert receiver.taken == []
    deps.store.cancel("one")
    for _ in range(3):
        deliver_due(deps, receiver)
    assert [url for url, _, _ in receiver.taken] == [URL]
    assert json.loads(receiver.taken[0][1])["type"] == "job.cancelled"


def test_message_says_how_the_job_ended_and_is_signed(deps: Deps, clock: FakeClock) -> None:
    receiver = Receiver(204)
    ended(deps, "a secret")
    deliver_due(deps, receiver)
    _, body, headers = receiver.taken[0]
    told = json.loads(body)
    assert (told["type"], told["data"]["id"], told["data"]["outcome"], told["data"]["speedup"]) == ("job.succeeded", "one", "improved", 1.5)
    assert len(body) < 2000
    assert headers["webhook-id"] == "one"
    assert headers["webhook-timestamp"] == str(int(clock().timestamp()))
    signed = f"one.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"a secret", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_without_a_secret_there_is_no_signature(deps: Deps) -> None:
    receiver = Receiver(200)
    ended(deps)
    deliver_due(deps, receiver)
    assert "webhook-signature" not in receiver.taken[0][2]


def test_signature_is_that_of_the_published_example() -> None:
    """The example of https://www.standardwebhooks.com, with its key in Base64."""
    body = b'{"test": 2432232314}'
    found = signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("problem", [500, 302, 404, OSError("no such host")])
def test_what_is_not_taken_is_sent_again_later_and_later_and_then_given_up(deps: Deps, clock: FakeClock, problem: int | Exception) -> None:
    receiver = Receiver(problem)
    ended(deps)
    deliver_due(deps, receiver)
    for number, wait in enumerate(WAIT_SECONDS, 1):
        clock.advance(wait - 1)
        deliver_due(deps, receiver)
        assert len(receiver.taken) == number
        clock.advance(1)
        deliver_due(deps, receiver)
        assert len(receiver.taken) == number + 1
    clock.advance(10**6)
    deliver_due(deps, receiver)
    assert len(receiver.taken) == len(WAIT_SECONDS) + 1
    assert {headers["webhook-id"] for _, _, headers in receiver.taken} == {"one"}


def test_a_second_attempt_that_is_taken_is_the_last(deps: Deps, clock: FakeClock) -> None:
    receiver = Receiver(503, 200)
    ended(deps)
    for _ in range(4):
        deliver_due(deps, receiver)
        clock.advance(WAIT_SECONDS[0])
    assert len(receiver.taken) == 2


def test_what_leads_inside_is_given_up_at_once(deps: Deps, clock: FakeClock) -> None:
    receiver = Receiver(InvalidRequestError("inside", fix="none"))
    ended(deps)
    deliver_due(deps, receiver)
    clock.advance(10**6)
    deliver_due(deps, receiver)
    assert len(receiver.taken) == 1


def test_webhook_whose_key_is_lost_waits_for_it_and_holds_up_no_other(
    deps: Deps, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver, key = Receiver(200), deps.settings.data_dir / KEY_NAME
    ended(deps, "a secret")
    lost = key.read_text()
    key.unlink()
    deps.store.create(new_job("two"), Webhook("https://example.org/two"))
    deps.store.cancel("two")
    deliver_due(deps, receiver)
    assert [url for url, _, _ in receiver.taken] == ["https://example.org/two"]
    assert "job one: its webhook was not taken (webhook of job one: it was encrypted with another key" in caplog.text
    key.write_text(key.read_text() + lost)
    clock.advance(WAIT_SECONDS[0])
    deliver_due(deps, receiver)
    assert "webhook-signature" in receiver.taken[1][2]


def test_webhook_whose_key_stays_lost_is_given_up_with_the_reason(deps: Deps, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    ended(deps, "a secret")
    (deps.settings.data_dir / KEY_NAME).unlink()
    keep_encrypted(deps)
    assert "webhooks wait: encryption key" in caplog.text  # there is none at all
    deps.store.create(new_job("two"), Webhook(URL))
    caplog.clear()
    keep_encrypted(deps)
    assert "job one: its webhook was encrypted with a key that is lost" in caplog.text
    for wait in (*WAIT_SECONDS, 1):
        deliver_due(deps, Receiver(200))
        clock.advance(wait)
    assert f"job one: its webhook is given up after {len(WAIT_SECONDS) + 1} attempts: webhook of job one: it was encrypted" in caplog.text
    assert deps.store.webhooks.due(clock().timestamp()) == ()


def test_nobody_is_told_of_a_job_that_was_deleted(deps: Deps) -> None:
    receiver = Receiver(200)
    ended(deps)
    deps.store.remove("one", "it was deleted")
    deliver_due(deps, receiver)
    assert receiver.taken == []


def test_message_goes_to_the_address_that_was_looked_at_under_the_name_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means another address a moment later leads nowhere else; a redirect is not followed."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("8.8.4.4", 8443))])
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(302, headers={"Location": "http://127.0.0.1/"})

    post = poster(any_address=False, transport=httpx.MockTransport(answer))
    assert post("https://example.org:8443/hook?x=1", b"{}", {"webhook-id": "one"}) == 302
    assert [str(request.url) for request in asked] == ["https://8.8.4.4:8443/hook?x=1"]
    assert asked[0].headers["host"] == "example.org:8443"
    assert asked[0].extensions["sni_hostname"] == "example.org"
    assert asked[0].headers["webhook-id"] == "one"


def test_what_goes_wrong_on_the_way_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("8.8.4.4", 443))])

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(OSError, match="ConnectError: refused"):
        poster(any_address=False, transport=httpx.MockTransport(refuse))(URL, b"{}", {})


def test_message_to_a_name_that_leads_inside_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("169.254.169.254", 80))])
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    with pytest.raises(InvalidRequestError):
        poster(any_address=False, transport=httpx.MockTransport(answer))("http://metadata.example/", b"{}", {})
    assert asked == []
    assert poster(any_address=True, transport=httpx.MockTransport(answer))("http://metadata.example/", b"{}", {}) == 200
