"""Tenants on one live server, each of which tries to see or touch what the other has."""

from __future__ import annotations

import hashlib
import statistics
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest

from service.access.caller import Role
from service.access.key_text import KeyText
from service.api import artifacts
from service.api.access.roles import ROLES
from service.api.live import event_stream
from tests.fakes import fake_model
from tests.service.api.access.tenants import MODEL, SLOW, client_of, finished, key_of, submit
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem


def routes_of_jobs() -> list[tuple[str, str]]:
    return [(method, path) for method, path in ROLES if "{job_id}" in path]


def test_a_foreign_job_is_answered_like_one_that_is_not_there_on_every_route(red: httpx.Client, blue: httpx.Client) -> None:
    theirs = finished(blue, fake_model(trials=1, seconds=0.01))
    fingerprint = blue.get(f"/v1/jobs/{theirs}").json()["trials"][0]["fingerprint"]
    nobodys = str(uuid.uuid4())
    for method, path in routes_of_jobs():
        answers = []
        for job_id in (theirs, nobodys):
            address = path.format_map({"job_id": job_id, "fingerprint": fingerprint}) if "{name" not in path else ""
            address = address or path.replace("{job_id}", job_id).replace("{name:path}", "report.html")
            answer = red.request(method, address)
            kept = {name: value for name, value in answer.headers.items() if name not in ("date", "content-length")}
            answers.append((answer.status_code, answer.text.replace(job_id, "JOB"), kept))
        assert answers[0] == answers[1], (method, path)
        assert answers[0][0] == 404, (method, path)
    assert blue.get(f"/v1/jobs/{theirs}").status_code == 200  # nothing was cancelled or deleted


def test_a_foreign_job_takes_about_as_long_as_one_that_is_not_there(server: Server, red: httpx.Client, blue: httpx.Client) -> None:
    """In the store alone: the network's own spread is far larger. Both are one row less or more of an index."""
    theirs, nobodys = finished(blue), str(uuid.uuid4())

    def seconds(job_id: str) -> float:
        begun = time.perf_counter()
        try:
            server.deps.store.get(job_id, "red")
        except Exception as error:
            assert type(error).__name__ == "NotFoundError"  # noqa: PT017  # the time is what is asked
        return time.perf_counter() - begun

    rounds = [(seconds(theirs), seconds(nobodys)) for _ in range(300)]
    foreign, none = (statistics.median(times) for times in zip(*rounds, strict=True))
    assert 1 / 3 < foreign / none < 3


def test_a_foreign_jobs_removal_is_not_told(red: httpx.Client, blue: httpx.Client) -> None:
    theirs = finished(blue)
    assert blue.delete(f"/v1/jobs/{theirs}").status_code == 204
    assert blue.get(f"/v1/jobs/{theirs}").status_code == 410
    assert red.get(f"/v1/jobs/{theirs}").status_code == 404


def test_lists_hold_the_own_jobs_and_an_admin_may_choose(server: Server, red: httpx.Client, blue: httpx.Client) -> None:
    mine, theirs = finished(red), finished(blue)

    def ids(client: httpx.Client, query: str = "") -> set[str]:
        return {row["id"] for row in client.get(f"/v1/jobs?limit=100{query}").json()["jobs"]}

    assert mine in ids(red)
    assert theirs not in ids(red)
    assert ids(red) == ids(red, "&tenant=red")
    assert {mine, theirs} <= ids(server.client)
    assert ids(server.client, "&tenant=red") == ids(red)
    for foreign in ("blue", "%", "re_", "", "nobody", "x" * 5000):
        assert_problem(red.get("/v1/jobs", params={"tenant": foreign}), 403, "forbidden")
        assert_problem(red.get("/v1/usage", params={"tenant": foreign}), 403, "forbidden")
    for wildcard in ("%", "re_", "*"):
        assert ids(server.client, f"&tenant={wildcard}") == set()
    assert server.client.get(f"/v1/jobs/{mine}").json()["tenant"] == "red"


def test_cursors_lead_to_no_foreign_jobs(red: httpx.Client, blue: httpx.Client) -> None:
    mine = {submit(red, SLOW) for _ in range(2)}
    theirs = {submit(blue, SLOW) for _ in range(2)}
    for number in range(1, 200, 7):
        rows = red.get(f"/v1/jobs?cursor=before-{number}&limit=100").json()["jobs"]
        assert {row["tenant"] for row in rows} <= {"red"}
    for client, ids in ((red, mine), (blue, theirs)):
        for job_id in ids:
            client.post(f"/v1/jobs/{job_id}/cancel")


def test_what_another_tenant_uploaded_is_not_here(server: Server, red: httpx.Client, blue: httpx.Client) -> None:
    data = b"secret weights of blue"
    file_id = blue.post("/v1/files", content=data).json()["id"]
    nobodys = "sha256:" + "0" * 64
    for method in ("GET", "DELETE"):
        answers = [red.request(method, f"/v1/files/{one}") for one in (file_id, nobodys)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].text.replace(file_id, "ID") == answers[1].text.replace(nobodys, "ID")
    answers = [red.post(f"/v1/files/{one}/preflight") for one in (file_id, nobodys)]
    assert [answer.status_code for answer in answers] == [404, 404]
    used = red.post("/v1/jobs", json={"model_id": file_id, "calibration_id": file_id})
    assert_problem(used, 404, "not-found")
    assert blue.get(f"/v1/files/{file_id}").status_code == 200
    assert red.post("/v1/files", content=data).json()["id"] == file_id  # who has the bytes may send them
    assert red.get(f"/v1/files/{file_id}").status_code == 200
    assert red.delete(f"/v1/files/{file_id}").status_code == 204
    assert blue.get(f"/v1/files/{file_id}").status_code == 200  # it stays blue's
    assert blue.delete(f"/v1/files/{file_id}").status_code == 204
    assert server.deps.artifacts.find(hashlib.sha256(data).hexdigest()) is None


def test_what_anothers_job_left_is_no_upload_of_mine(red: httpx.Client, blue: httpx.Client) -> None:
    model = fake_model(trials=0, seconds=0.011)
    theirs = finished(blue, model)
    engine = blue.get(f"/v1/jobs/{theirs}/artifacts").json()["artifacts"][0]
    assert blue.get(f"/v1/files/sha256:{engine['sha256']}").status_code == 200
    assert red.get(f"/v1/files/sha256:{engine['sha256']}").status_code == 404


def test_idempotency_keys_are_each_tenants_own(red: httpx.Client, blue: httpx.Client) -> None:
    mine, theirs = (submit(client, MODEL, **{"Idempotency-Key": "release-7"}) for client in (red, blue))
    assert mine != theirs
    assert submit(red, MODEL, **{"Idempotency-Key": "release-7"}) == mine
    other = blue.post("/v1/jobs", files={"model": fake_model(trials=1), "calibration": b"n"}, headers={"Idempotency-Key": "release-7"})
    assert mine not in other.text
    assert theirs in str(assert_problem(other, 422, "invalid-request")["detail"])


def test_roles_hold_on_a_live_server(server: Server, red: httpx.Client) -> None:
    mine = finished(red)
    with client_of(server, key_of(server, "red", Role.READ)) as reader:
        assert reader.get(f"/v1/jobs/{mine}/engine").content == b"engine of " + MODEL
        assert reader.get("/v1/usage").json()["key"]["role"] == "read"
        changes = (("POST", "/v1/files"), ("POST", "/v1/jobs"), ("POST", f"/v1/jobs/{mine}/cancel"), ("DELETE", f"/v1/jobs/{mine}"))
        for method, path in changes:
            assert "this needs submit" in str(assert_problem(reader.request(method, path), 403, "forbidden")["detail"])
    for path in ("/metrics", "/v1/audit"):
        assert "this needs admin" in str(assert_problem(red.get(path), 403, "forbidden")["detail"])
    with client_of(server, key_of(server, "green", Role.ADMIN)) as admin:
        assert admin.get(f"/v1/jobs/{mine}").status_code == 200
        assert admin.get("/metrics").status_code == 200
        assert admin.delete(f"/v1/jobs/{mine}").status_code == 204


def test_a_revoked_key_ends_the_stream_of_events(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "LOOK_SECONDS", 0.2)
    key = key_of(server, "red")
    with client_of(server, key) as client:
        job_id = submit(client, SLOW)
        with client.stream("GET", f"/v1/jobs/{job_id}/events", timeout=20) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("retry")
            server.deps.store.keys.revoke(key.id)
            begun = time.monotonic()
            told = list(lines)
        assert time.monotonic() - begun < 10
        assert not any(line == "event: end" for line in told)
        assert_problem(client.get(f"/v1/jobs/{job_id}/events"), 401, "unauthorized")
    server.client.post(f"/v1/jobs/{job_id}/cancel")


def test_a_revoked_key_cuts_a_download_that_goes_on(server: Server, red: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "LOOK_SECONDS", 0.0)
    big = fake_model(trials=0, padding="x" * (3 * 2**20))
    key = key_of(server, "red")
    job_id = finished(red, big)
    with client_of(server, key) as client:
        whole = client.get(f"/v1/jobs/{job_id}/engine")
        assert len(whole.content) == int(whole.headers["content-length"])
        first = server.deps.store.keys.find
        seen: list[str] = []

        def find(text: KeyText) -> object:
            seen.append(text.id)
            if len(seen) == 3:  # once at the door, then at each piece
                server.deps.store.keys.revoke(text.id)
            return first(text)

        monkeypatch.setattr(server.deps.store.keys, "find", find)
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(f"/v1/jobs/{job_id}/engine")
        assert_problem(client.get(f"/v1/jobs/{job_id}/engine"), 401, "unauthorized")


def test_a_key_that_is_revoked_while_the_body_arrives_makes_no_job(server: Server) -> None:
    key = key_of(server, "red")

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\n'
        yield MODEL
        server.deps.store.keys.revoke(key.id)
        yield b'\r\n--b\r\nContent-Disposition: form-data; name="calibration"; filename="c"\r\n\r\nn\r\n--b--\r\n'

    before = len(server.deps.store.rows(limit=1000, tenant="red"))
    with client_of(server, key) as client:
        answer = client.post("/v1/jobs", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert_problem(answer, 401, "unauthorized")
    assert len(server.deps.store.rows(limit=1000, tenant="red")) == before
