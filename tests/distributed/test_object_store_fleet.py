"""Processes that share no folder: what one stores, the others have, and jobs outlast the object store."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.distributed.fleet import Fleet, running_fleet
from tests.faults.server_process import wait_until
from tests.object_store_server import REASON, ObjectStoreServer, binary, running_object_store
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.long  # each starts a database and several processes

GPU = "RTX 4090"


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectStoreServer]:
    """An object store of this module alone, which it kills."""
    found = binary()
    if found is None:
        pytest.skip(REASON)
    with running_object_store(found) as server:
        yield server


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer, objects: ObjectStoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with running_fleet(folder, postgres.create_database(), "one", "two", gpu=GPU, objects=objects) as fleet:
        yield fleet


def test_a_job_runs_on_a_worker_that_shares_no_folder_with_the_api(fleet: Fleet) -> None:
    job_id = fleet.submit(trials=2, seconds=0.2)
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    engine = fleet.client.get(f"/v1/jobs/{job_id}/engine")
    assert engine.content.startswith(b"engine of ")
    assert engine.headers["content-length"] == str(len(engine.content))
    assert "trial: took" in fleet.client.get(f"/v1/jobs/{job_id}/log").text
    assert fleet.client.get("/readyz").json() == {"status": "ready", "problems": {}}
    wait_until(lambda: fleet.left_files() == [], 20, lambda: str(fleet.left_files()))
    assert not fleet.shared.exists()


def test_another_worker_goes_on_with_what_a_killed_one_stored(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=2, seconds=1.0)
    dead = fleet.owner(fleet.wait_for_line("begin trial/1", after=before))
    log = fleet.client.get(f"/v1/jobs/{job_id}/log").text
    assert "trial: took" in log  # of the stage before
    dead.end(signal.SIGKILL)
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert counts.pop("begin trial/1") == 2
    assert set(counts.values()) == {1}, counts
    assert fleet.client.get(f"/v1/jobs/{job_id}/log").text.startswith(log)
    dead.launch()
    fleet.wait_until_up()
    wait_until(lambda: fleet.left_files() == [], 20, lambda: str(fleet.left_files()))


def test_a_stage_on_the_worker_of_a_gpu_finds_its_files(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(json.dumps({"target": "tensorrt-rtx", "gpu": GPU}), trials=2, seconds=0.2)
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert [trial["failure"] for trial in done["trials"]] == [None, None]  # type: ignore[attr-defined]
    assert fleet.client.get(f"/v1/jobs/{job_id}/log").text.count("trial: took") == 2  # which the other worker wrote
    assert set(fleet.counts(before).values()) == {1}
    wait_until(lambda: fleet.left_files() == [], 20, lambda: str(fleet.left_files()))


def test_a_job_waits_for_the_object_store_and_goes_on_by_itself(fleet: Fleet, objects: ObjectStoreServer) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=2, seconds=1.0)
    fleet.wait_for_line("begin trial/0", after=before)
    objects.kill()
    wait_until(lambda: "object store" in str(fleet.job(job_id).get("hold")), 60, fleet.logs)
    assert fleet.job(job_id)["state"] == "on_hold"
    wait_until(lambda: "object store" in fleet.client.get("/readyz").json()["problems"].get("storage", ""), 30, fleet.logs)
    refused = fleet.client.post("/v1/jobs", files={"model": b"{}", "calibration": b"numbers"})
    assert (refused.status_code, "object store" in refused.json()["detail"]) == (503, True)
    objects.start()
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert set(fleet.counts(before).values()) == {1}  # the stage that had ended does not run again
    wait_until(lambda: fleet.client.get("/readyz").status_code == 200, 30, fleet.logs)
    wait_until(lambda: fleet.left_files() == [], 20, lambda: str(fleet.left_files()))


def test_a_damaged_input_ends_the_job_with_its_name(fleet: Fleet, objects: ObjectStoreServer) -> None:
    before = fleet.lines()
    first = fleet.submit(trials=1, seconds=2.0, note="keeps one worker busy")
    second = fleet.submit(trials=1, seconds=2.0, note="and the other")
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == 2, 30, fleet.logs)
    waiting = fleet.submit(trials=1, note="is not on any worker yet")
    assert objects.damage(fleet.folder.name) > 0
    done = fleet.wait(waiting)
    assert done["state"] == "failed"
    problem = done["error"]
    assert isinstance(problem, dict)
    assert problem["type"].endswith("artifact-damaged")
    assert f"job {waiting}: inputs/" in problem["detail"]
    assert {fleet.wait(job)["state"] for job in (first, second)} == {"succeeded"}  # they had their files already
    wait_until(lambda: fleet.left_files() == [], 20, lambda: str(fleet.left_files()))
