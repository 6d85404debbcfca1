"""A disk that is full, read-only for a while, or locked: jobs wait and go on, callers are told, nothing is lost or run twice."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server_process import ServerProcess, fill, locked, running, small_disk, wait_until

pytestmark = pytest.mark.long


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Iterator[ServerProcess]:
    disk = tmp_path / "disk"
    with small_disk(disk, 24 * 2**20) as reason:
        if reason is not None:
            pytest.skip(reason)
        with running(tmp_path, disk / "data") as server:
            yield server


def assert_only_the_step_in_flight_ran_again(server: ServerProcess, in_flight: str, *others: str) -> None:
    counts = server.counts()
    assert counts[f"end {in_flight}"] in {1, 2}, counts
    assert {name: counts[f"end {name}"] for name in others} == dict.fromkeys(others, 1), counts


def test_a_full_disk_holds_the_job_and_callers_are_told(on_small_disk: ServerProcess) -> None:
    server = on_small_disk
    job_id = server.submit(trials=3, seconds=0.6)
    other = server.submit(trials=0)
    server.wait_for_line("begin trial/0")
    filler = fill(server.data)

    held = server.wait(job_id, "on_hold", seconds=30)
    assert isinstance(held["hold"], dict)
    assert "have to stay free" in held["hold"]["reason"]
    assert "room" in held["hold"]["fix"]
    listed = server.client.get("/v1/jobs", params={"state": "on_hold"}).json()["jobs"]
    assert [job["id"] for job in listed] == [job_id]
    assert server.client.get("/v1/jobs", params={"state": "running"}).json()["jobs"] == []
    ready = server.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert "have to stay free" in ready.json()["problems"]["storage"]
    refused = server.post(trials=1)
    assert refused.status_code == 507, refused.text
    assert "room" in refused.json()["fix"]

    filler.unlink()
    assert server.wait(job_id)["state"] == "succeeded"
    assert server.wait(other)["state"] == "succeeded"
    assert server.job(job_id)["hold"] is None
    assert server.client.get("/readyz").status_code == 200
    assert_only_the_step_in_flight_ran_again(server, "trial/0", "trial/1", "trial/2")


def test_a_job_on_hold_can_be_cancelled_once_there_is_room_and_outlasts_a_restart(on_small_disk: ServerProcess) -> None:
    server = on_small_disk
    job_id = server.submit(trials=2, seconds=0.6)
    server.wait_for_line("begin trial/0")
    filler = fill(server.data)
    server.wait(job_id, "on_hold", seconds=30)
    answer = server.client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code in {200, 507}, answer.text  # the database may have room in its own log
    server.end(signal.SIGKILL)
    filler.unlink()
    server.start()
    assert server.wait(job_id)["state"] == ("cancelled" if answer.status_code == 200 else "succeeded")


def test_a_folder_that_is_read_only_for_a_while_holds_the_job(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        jobs = str(server.data / "jobs")
        job_id = server.submit(trials=3, seconds=0.6)
        server.wait_for_line("begin trial/0")
        bound = subprocess.run(["mount", "--bind", jobs, jobs], capture_output=True, text=True, check=False)
        if bound.returncode:
            pytest.skip(f"no folder can be made read-only here: {bound.stderr.strip()}")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", jobs], check=True)
            server.wait(job_id, "on_hold", seconds=30)
            assert server.client.get("/readyz").status_code == 503
            refused = server.post(trials=1)
            assert (refused.status_code, refused.json()["title"]) == (503, "Storage unavailable")
            assert "Read-only" in refused.json()["detail"]
        finally:
            subprocess.run(["umount", "--lazy", jobs], check=True)
        assert server.wait(job_id)["state"] == "succeeded"
        assert_only_the_step_in_flight_ran_again(server, "trial/0", "trial/1", "trial/2")


def test_a_locked_database_makes_callers_wait_for_seconds_and_fails_no_job(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        job_id = server.submit(trials=3, seconds=0.3)
        server.wait_for_line("begin trial/0")
        with locked(server.data / "service.sqlite"):
            asked = time.monotonic()
            refused = server.post(trials=0)
            cancelled = server.client.post(f"/v1/jobs/{job_id}/cancel")
            assert time.monotonic() - asked < 15
            for answer in (refused, cancelled):
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) > 0
                assert "locked" in answer.json()["detail"]
            assert server.job(job_id)["state"] in {"running", "on_hold"}
        assert server.wait(job_id, seconds=60)["state"] == "succeeded"
        assert_only_the_step_in_flight_ran_again(server, "trial/0", "trial/1", "trial/2")
        assert server.wait(server.submit(trials=0))["state"] == "succeeded"


def test_a_job_whose_stage_fills_the_disk_again_and_again_fails_with_the_reason(on_small_disk: ServerProcess) -> None:
    server = on_small_disk
    done = server.wait(server.submit(trials=1, fail="fills"), seconds=60)
    assert done["state"] == "failed"
    assert isinstance(done["error"], dict)
    assert "disk" in done["error"]["detail"]
    wait_until(lambda: server.client.get("/readyz").status_code == 200, 10)
    assert server.wait(server.submit(trials=1))["state"] == "succeeded"
