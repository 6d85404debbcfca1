from __future__ import annotations

import time

from tests.fakes import fake_model
from tests.service.conftest import Server
from tests.service.jobs.test_uploads import assert_problem


def digests(server: Server, job_id: object) -> set[str]:
    return {item["sha256"] for item in server.client.get(f"/v1/jobs/{job_id}/artifacts").json()["artifacts"]}


def stored(server: Server, sha256s: set[str]) -> set[str]:
    return {sha256 for sha256 in sha256s if server.deps.artifacts.find(sha256) is not None}


def test_deleted_job_is_gone_with_its_files(server: Server) -> None:
    job = server.wait(server.submit(trials=1, seconds=0.01)["id"])
    files = digests(server, job["id"])
    other = digests(server, server.wait(server.submit(trials=0)["id"])["id"])

    answer = server.client.delete(f"/v1/jobs/{job['id']}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert stored(server, files) == files & other  # what another job has too
    assert stored(server, other) == other
    for path in ("", "/engine", "/artifacts", "/artifacts/report.html", "/events"):
        problem = assert_problem(server.client.get(f"/v1/jobs/{job['id']}{path}"), 410, "job-removed")
        assert "it was deleted by a request" in str(problem["detail"])
    assert_problem(server.client.delete(f"/v1/jobs/{job['id']}"), 410, "job-removed")
    assert str(job["id"]) not in server.client.get("/v1/jobs?limit=100").text


def test_job_that_was_removed_long_ago_is_answered_like_one_that_never_was(server: Server) -> None:
    job_id = server.wait(server.submit(trials=0)["id"])["id"]
    assert server.delete(job_id) == 204
    assert_problem(server.client.get(f"/v1/jobs/{job_id}"), 410, "job-removed")
    server.deps.store.forget_removed(time.time() + 1, lambda _: False)
    for path in ("", "/engine", "/artifacts", "/log", "/events"):
        problem = assert_problem(server.client.get(f"/v1/jobs/{job_id}{path}"), 404, "not-found")
        assert "there is no such job, or it was removed long ago" in str(problem["detail"])
    for answer in (server.client.post(f"/v1/jobs/{job_id}/cancel"), server.client.delete(f"/v1/jobs/{job_id}")):
        assert_problem(answer, 404, "not-found")


def test_unfinished_job_has_to_be_cancelled_first(server: Server) -> None:
    running = server.submit(trials=1, seconds=30)["id"]
    queued = server.submit(trials=0)["id"]
    server.wait(running, "running")
    for job_id, state in ((running, "running"), (queued, "queued")):
        problem = assert_problem(server.client.delete(f"/v1/jobs/{job_id}"), 409, "job-not-finished")
        assert f"its state is {state}" in str(problem["detail"])
        assert str(problem["fix"]).startswith("Cancel it first")
        server.client.post(f"/v1/jobs/{job_id}/cancel")
    for job_id in (running, queued):
        deadline = time.monotonic() + 10
        while (answer := server.client.delete(f"/v1/jobs/{job_id}")).status_code != 204:
            assert "still ending" in str(assert_problem(answer, 409, "job-not-finished")["detail"])
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert server.wait(server.submit(trials=0)["id"])["state"] == "succeeded"  # the queue goes on


def test_upload_outlives_the_job_that_made_the_same_file(server: Server) -> None:
    model = fake_model(trials=0, seconds=0.02)
    engine = server.client.post("/v1/files", content=b"engine of " + model).json()["id"]
    job = server.wait(server.client.post("/v1/jobs", files={"model": model, "calibration": b"numbers"}).json()["id"])
    assert engine.removeprefix("sha256:") in digests(server, job["id"])

    assert server.client.delete(f"/v1/jobs/{job['id']}").status_code == 204

    assert server.client.get(f"/v1/files/{engine}").status_code == 200


def test_key_of_a_deleted_job_makes_a_new_one(server: Server) -> None:
    files = {"model": fake_model(trials=0), "calibration": b"numbers"}
    headers = {"Idempotency-Key": "once"}
    first = server.wait(server.client.post("/v1/jobs", files=files, headers=headers).json()["id"])
    server.client.delete(f"/v1/jobs/{first['id']}")
    again = server.client.post("/v1/jobs", files=files, headers=headers).json()
    assert again["id"] != first["id"]
    assert server.wait(again["id"])["state"] == "succeeded"
