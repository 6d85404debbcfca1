"""Workers that die, stand still or meet themselves: jobs go on, and nothing that was finished runs again."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from service.database.shared_folder import ID_NAME
from tests.distributed.fleet import LEASE_SECONDS, Fleet, running_fleet
from tests.fakes import fake_model
from tests.faults.server_process import wait_until
from tests.postgres_server import REASON, PostgresServer, binaries, running_postgres

TAKEOVER_SECONDS = 30.0  # what is promised
GPU = "RTX 4090"
ALL = {"api", "one", "two", "gpu"}


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """A Postgres of this module alone, which it kills."""
    found = binaries()
    if found is None:
        pytest.skip(REASON)
    with running_postgres(found) as server:
        yield server


@pytest.fixture(scope="module")
def fleet(database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), database.create_database(), "one", "two", gpu=GPU) as fleet:
        yield fleet


def test_a_job_runs_on_a_worker_and_is_seen_whole_at_the_api(fleet: Fleet) -> None:
    job_id = fleet.submit(trials=2, seconds=0.2)
    pid = fleet.wait_for_line("begin trial/0")
    assert fleet.owner(pid).name in {"one", "two"}
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert len(done["trials"]) == 2  # type: ignore[arg-type]
    assert fleet.client.get(f"/v1/jobs/{job_id}/engine").content.startswith(b"engine of ")
    assert "trial: took" in fleet.client.get(f"/v1/jobs/{job_id}/log").text
    events = fleet.client.get(f"/v1/jobs/{job_id}/events").text
    assert events.count("event: trial") == 2
    assert "event: end" in events
    assert set(fleet.counts().values()) == {1}
    assert fleet.query(f"SELECT DISTINCT executor_id FROM dbos.workflow_status WHERE workflow_uuid = '{job_id}'") != [("api",)]
    wait_until(lambda: fleet.left_files() == [], 10)


@pytest.mark.long
def test_two_jobs_run_at_the_same_time_on_two_workers(fleet: Fleet) -> None:
    before = fleet.lines()
    jobs = [fleet.submit(trials=1, seconds=2.0) for _ in range(2)]
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == 2, 30, fleet.logs)
    assert fleet.counts(before)["end trial/0"] == 0
    assert [fleet.wait(job)["state"] for job in jobs] == ["succeeded", "succeeded"]


def test_another_worker_goes_on_where_a_killed_one_was(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=2, seconds=1.0)
    dead = fleet.owner(fleet.wait_for_line("begin trial/1", after=before))
    dead.end(signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: fleet.counts(before)["begin trial/1"] == 2, TAKEOVER_SECONDS, fleet.logs)
    assert time.monotonic() - killed < TAKEOVER_SECONDS
    done = fleet.wait(job_id)
    dead.launch()
    fleet.wait_until_up()

    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert all(trial["failure"] is None for trial in done["trials"])  # type: ignore[attr-defined]
    counts = fleet.counts(before)
    assert counts.pop("begin trial/1") == 2  # the one that was in flight
    assert set(counts.values()) == {1}, counts


@pytest.mark.long
def test_a_worker_that_stands_still_finds_its_lease_gone_and_stops(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=2, seconds=1.0)
    still = fleet.owner(fleet.wait_for_line("begin trial/1", after=before))
    stage = fleet.wait_for_line("begin trial/1", after=before)
    still.send(signal.SIGSTOP)
    wait_until(lambda: fleet.counts(before)["begin trial/1"] == 2, TAKEOVER_SECONDS, fleet.logs)
    assert fleet.wait_for_line("begin trial/1", after=before) != stage
    still.send(signal.SIGCONT)
    done = fleet.wait(job_id)
    wait_until(lambda: fleet.holders() == ALL, LEASE_SECONDS * 4, fleet.logs)

    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert "its lease is lost" in still.log.read_text()
    counts = fleet.counts(before)
    assert counts.pop("begin trial/1") == 2
    counts.pop("end trial/1")  # the stage itself did not stand still
    assert set(counts.values()) == {1}, counts
    assert fleet.query(f"SELECT count(*) FROM job_events WHERE job_id = '{job_id}' AND kind = 'end'") == [(1,)]
    jobs = [fleet.submit(trials=1, seconds=0.5) for _ in range(2)]  # it takes work again
    assert [fleet.wait(job)["state"] for job in jobs] == ["succeeded", "succeeded"]
    wait_until(lambda: fleet.left_files() == [], 10)


@pytest.mark.long
def test_stages_that_open_a_gpu_run_on_its_worker_and_the_others_with_the_job(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(json.dumps({"target": "tensorrt-rtx", "gpu": f"NVIDIA GeForce {GPU}"}), trials=2, seconds=0.5)
    assert fleet.owner(fleet.wait_for_line("begin trial/0", after=before)).name == "gpu"
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert [trial["failure"] for trial in done["trials"]] == [None, None]  # type: ignore[attr-defined]
    assert set(fleet.counts(before).values()) == {1}
    where = "SELECT name, queue_name, executor_id FROM dbos.workflow_status WHERE workflow_uuid LIKE"
    rows = fleet.query(f"{where} '{job_id}%%' ORDER BY created_at")
    assert rows[0][:2] == ("optimize_job", "jobs")
    assert rows[0][2] in {"one", "two"}
    assert rows[1:] == [("gpu_stage", f"gpu.{GPU}", "gpu")] * 2


@pytest.mark.long
def test_a_gpu_stage_that_crashes_costs_one_trial_and_cancel_reaches_it(fleet: Fleet) -> None:
    config = json.dumps({"target": "tensorrt-rtx", "gpu": GPU})
    done = fleet.wait(fleet.submit(config, trials=1, fail="crash"))
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert "SIGABRT" in done["trials"][0]["failure"]  # type: ignore[index]
    before = fleet.lines()
    running, waiting = fleet.submit(config, trials=1, seconds=60), fleet.submit(config, trials=1, seconds=60)
    fleet.wait_for_line("begin trial/0", after=before)
    for job_id in (running, waiting):
        assert fleet.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    wait_until(lambda: fleet.left_files() == [], 20, fleet.logs)
    assert fleet.counts(before)["end trial/0"] == 0
    assert fleet.wait(fleet.submit(config, trials=1))["state"] == "succeeded"


@pytest.mark.long
def test_a_gpu_that_no_worker_has_is_not_waited_for(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(json.dumps({"target": "tensorrt-rtx", "gpu": "L4"}), trials=1, seconds=0.5)
    assert fleet.owner(fleet.wait_for_line("begin trial/0", after=before)).name in {"one", "two"}
    assert fleet.wait(job_id)["state"] == "succeeded"


@pytest.mark.long
def test_cancel_reaches_a_job_on_another_process(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=1, seconds=60)
    fleet.wait_for_line("begin trial/0", after=before)
    assert fleet.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    wait_until(lambda: fleet.left_files() == [], 10, fleet.logs)  # its stage has ended
    assert fleet.counts(before)["end trial/0"] == 0
    assert fleet.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert fleet.client.get(f"/v1/jobs/{job_id}").status_code == 410
    assert fleet.query(f"SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = '{job_id}'") == [(0,)]


@pytest.mark.long
def test_submissions_are_refused_while_the_shared_folder_is_not_there(fleet: Fleet) -> None:
    known = fleet.shared / ID_NAME
    away = known.rename(fleet.folder / ID_NAME)
    answer = fleet.client.post("/v1/jobs", files={"model": fake_model(trials=1, seconds=0.2), "calibration": b"numbers"})
    assert answer.status_code == 503
    assert "shared folder: it is not there" in answer.json()["detail"]
    away.rename(known)
    assert fleet.wait(fleet.submit(trials=1, seconds=0.2))["state"] == "succeeded"


@pytest.mark.long
def test_a_job_outlasts_its_shared_folder(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=2, seconds=1.0)
    fleet.wait_for_line("begin trial/0", after=before)
    away = fleet.shared.rename(fleet.folder / "away")
    wait_until(lambda: "shared folder: it is not there" in str(fleet.job(job_id)["hold"]), 30, fleet.logs)
    assert "shared folder" in fleet.client.get("/readyz").json()["problems"]["storage"]
    shutil.rmtree(fleet.shared, ignore_errors=True)  # what was written meanwhile
    away.rename(fleet.shared)
    assert fleet.wait(job_id)["state"] == "succeeded"
    assert fleet.counts(before)["begin inspect"] == 1


@pytest.mark.long
def test_begun_jobs_go_on_after_an_outage_before_new_ones_begin(fleet: Fleet, database: PostgresServer) -> None:
    before = fleet.lines()
    begun = [fleet.submit(trials=2, seconds=3.0) for _ in range(2)]
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == 2, 30, fleet.logs)
    new = [fleet.submit(trials=1, seconds=0.5) for _ in range(2)]
    database.kill()
    time.sleep(LEASE_SECONDS)
    database.start()
    first, later = [fleet.wait(job) for job in begun], [fleet.wait(job) for job in new]
    assert [job["state"] for job in (*first, *later)] == ["succeeded"] * 4, fleet.logs()
    assert min(str(job["started_at"]) for job in later) >= min(str(job["finished_at"]) for job in first)


@pytest.mark.long
def test_a_job_outlasts_the_database(fleet: Fleet, database: PostgresServer) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=3, seconds=1.0)
    fleet.wait_for_line("begin trial/1", after=before)
    database.kill()
    time.sleep(1.0)
    database.start()
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert {name: count for name, count in counts.items() if name.startswith("begin") and count > 1}.keys() <= {
        "begin trial/1",
        "begin trial/2",
    }
    assert counts["begin trial/0"] == counts["begin inspect"] == 1
    wait_until(lambda: fleet.holders() == ALL, LEASE_SECONDS * 4, fleet.logs)
    assert fleet.wait(fleet.submit(trials=0))["state"] == "succeeded"
