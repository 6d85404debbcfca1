"""Quotas on a live server: what is past one is refused, and nothing of it is stored."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.fakes import fake_model
from tests.service.api.access.tenants import MODEL, client_of, finished, key_of, submit
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem


def test_the_last_place_is_taken_once(server: Server) -> None:
    key = key_of(server, "narrow")
    server.deps.store.tenants.change("narrow", {"jobs_at_once": 3})
    gate = threading.Barrier(8)

    def send(number: int) -> httpx.Response:
        with client_of(server, key) as client:
            gate.wait(20)
            return client.post("/v1/jobs", files={"model": fake_model(trials=1, seconds=30), "calibration": f"n{number}".encode()})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 5
    for answer in answers:
        if answer.status_code == 429:
            problem = assert_problem(answer, 429, "quota-exceeded")
            assert problem["detail"] == "quota jobs at once: 3 used of 3"
            assert int(answer.headers["retry-after"]) > 0
    with client_of(server, key) as client:
        rows = client.get("/v1/jobs").json()["jobs"]
        assert len(rows) == 3
        refused = [number for number, answer in enumerate(answers) if answer.status_code == 429]
        digests = [hashlib.sha256(f"n{number}".encode()).hexdigest() for number in refused]
        assert [server.deps.artifacts.find(digest) for digest in digests] == [None] * 5  # nothing of them is stored
        for row in rows:
            client.post(f"/v1/jobs/{row['id']}/cancel")
        assert client.post("/v1/jobs", files={"model": MODEL, "calibration": b"n"}).status_code == 202


def test_jobs_of_a_day_count_also_when_they_are_deleted(server: Server) -> None:
    with client_of(server, key_of(server, "daily")) as client:
        server.deps.store.tenants.change("daily", {"jobs_per_day": 2})
        for _ in range(2):
            assert client.delete(f"/v1/jobs/{finished(client)}").status_code == 204
        answer = client.post("/v1/jobs", files={"model": MODEL, "calibration": b"n"})
        problem = assert_problem(answer, 429, "quota-exceeded")
        assert re.fullmatch(r"quota jobs per day: 2 used of 2, and counts from 0 again at 20..-..-.. 00:00 UTC", str(problem["detail"]))
        assert 0 < int(answer.headers["retry-after"]) <= 24 * 3600
        assert client.get("/v1/usage").json()["quotas"]["jobs_per_day"] == {
            "used": 2,
            "limit": 2,
            "resets_at": client.get("/v1/usage").json()["quotas"]["jobs_per_day"]["resets_at"],
        }


def test_a_repeated_request_is_answered_though_the_quota_is_used_up(server: Server) -> None:
    with client_of(server, key_of(server, "again")) as client:
        server.deps.store.tenants.change("again", {"jobs_per_day": 1})
        first = submit(client, MODEL, **{"Idempotency-Key": "k"})
        assert submit(client, MODEL, **{"Idempotency-Key": "k"}) == first


def test_uploads_past_the_limit_are_refused_and_nothing_is_stored(server: Server) -> None:
    with client_of(server, key_of(server, "small")) as client:
        server.deps.store.tenants.change("small", {"stored_bytes": 1000})
        kept = client.post("/v1/files", content=b"a" * 600).json()["id"]

        def pieces() -> Iterator[bytes]:  # without a stated length
            for _ in range(4):
                yield b"c" * 200

        for content in (b"b" * 500, pieces()):
            problem = assert_problem(client.post("/v1/files", content=content), 429, "quota-exceeded")
            assert str(problem["detail"]).startswith("quota stored bytes: 600 used of 1,000, and this adds ")
        assert_problem(client.post("/v1/files", files={"file": b"d" * 500}), 429, "quota-exceeded")
        assert client.get("/v1/usage").json()["quotas"]["stored_bytes"]["used"] == 600
        for data in (b"b" * 500, b"c" * 800, b"d" * 500):
            assert server.deps.artifacts.find(hashlib.sha256(data).hexdigest()) is None
        assert client.delete(f"/v1/files/{kept}").status_code == 204
        assert client.post("/v1/files", content=b"b" * 500).status_code == 201


def test_minutes_of_stages_are_counted_and_refuse_further_jobs(server: Server) -> None:
    with client_of(server, key_of(server, "hungry")) as client:
        finished(client, fake_model(trials=1, seconds=0.5))
        quotas = client.get("/v1/usage").json()["quotas"]
        used = quotas["cpu_minutes_per_day"]["used"]
        assert 0 < used < 5
        assert quotas["cpu_minutes_per_month"]["used"] >= used
        assert quotas["gpu_minutes_per_day"]["used"] == 0
        server.deps.store.tenants.change("hungry", {"gpu_minutes_per_day": 0})
        finished(client)  # on a processor
        server.deps.store.tenants.change("hungry", {"cpu_minutes_per_month": 0.001})
        answer = client.post("/v1/jobs", files={"model": b"model of a refused job", "calibration": b"n"})
        assert "quota cpu minutes per month" in str(assert_problem(answer, 429, "quota-exceeded")["detail"])
        assert server.deps.artifacts.find(hashlib.sha256(b"model of a refused job").hexdigest()) is None
