"""Engines that are built ahead where workers share no folder: what one has built another fetches, or builds again where that is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.distributed.fleet import Fleet
from tests.fakes import executions
from tests.faults.server_process import wait_until
from tests.object_store_server import ObjectStoreServer
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.long  # each starts a database and several processes

CONFIG = json.dumps({"target": "tensorrt-rtx", "gpu": "NVIDIA L4"})
PREPARED = "SELECT sha256 FROM work_files WHERE job_id = '{}' AND name LIKE 'ahead/%%'"


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer, object_store: ObjectStoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("ahead"), postgres.create_database(), object_store)
    try:
        fleet.add("api", "api")
        fleet.add("one", "cpu")
        for name in ("gpu-0", "gpu-1"):
            fleet.add(name, "gpu", FAKE_GPU="L4")
        fleet.wait_until_up()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(autouse=True)
def _nothing_is_left(fleet: Fleet) -> Iterator[None]:
    """See that nothing that was prepared is left once all jobs have ended: no file, no reference to an object, no record, no process."""
    yield
    wait_until(lambda: fleet.left_files() == [], 20, lambda: f"{fleet.left_files()}\n{fleet.logs()}")
    wait_until(lambda: fleet.query("SELECT count(*) FROM dbos.workflow_status WHERE name = 'prepare_stage'") == [(0,)], 10)
    pids = [int(line.split()[-1]) for line in executions(fleet.record) if line.startswith("begin ahead/")]
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 10)


def digests(fleet: Fleet, job_id: str) -> set[str]:
    """Return which objects hold what is prepared for a job."""
    return {str(sha256) for (sha256,) in fleet.query(PREPARED.format(job_id))}


def killed_preparer(fleet: Fleet, before: int) -> str:
    """Kill the worker that prepared a trial, once it has, and return its name: the engine is in the object store alone then."""
    name = fleet.owner(fleet.wait_for_line("begin ahead/1", after=before)).name
    wait_until(lambda: fleet.counts(before)["end ahead/1"] == 1, 20, fleet.logs)
    done = "SELECT count(*) FROM dbos.workflow_status WHERE name = 'prepare_stage' AND status = 'SUCCESS'"
    wait_until(lambda: fleet.query(done) == [(1,)], 20, fleet.logs)
    fleet.processes[name].end(signal.SIGKILL)
    return name


def test_trials_take_what_idle_workers_built_and_are_the_same_as_without(fleet: Fleet) -> None:
    before = fleet.lines()
    done = fleet.wait(fleet.submit(CONFIG, trials=4, prepare_seconds=2.0, seconds=0.5))
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert all(counts[f"end trial/{index}"] == 1 for index in range(4)), counts
    assert counts["taken trial/1"] == counts["begin ahead/1"] == 1
    assert [trial["fingerprint"] for trial in done["trials"]] == [f"f{index}" for index in range(4)]  # type: ignore[attr-defined]
    log = fleet.client.get(f"/v1/jobs/{done['id']}/artifacts/log.txt").text
    assert [log.count(f"trial/{index}: built and scored ahead") for index in range(4)] == [0, 1, 1, 1]
    assert log.count("trial: took") == 4  # of whichever worker: none of the logs in different folders is lost


def test_a_worker_takes_what_another_built_that_is_gone(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(CONFIG, trials=2, seconds=6.0, prepare_seconds=0.1, ahead_seconds=2.0)
    dead = killed_preparer(fleet, before)
    assert len(digests(fleet, job_id)) == 1
    done = fleet.wait(job_id)
    fleet.processes[dead].launch()
    fleet.wait_until_up()
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert counts["taken trial/1"] == counts["begin ahead/1"] == counts["end trial/1"] == 1


@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "damaged"])
def test_what_is_lost_or_damaged_in_the_store_is_only_built_again(fleet: Fleet, object_store: ObjectStoreServer, is_lost: bool) -> None:
    before = fleet.lines()
    job_id = fleet.submit(CONFIG, trials=2, seconds=6.0, prepare_seconds=0.1, ahead_seconds=2.0, note=f"lost: {is_lost}")
    dead = killed_preparer(fleet, before)
    found = digests(fleet, job_id)
    assert object_store.harm(fleet.folder.name, found, is_lost=is_lost) == len(found) == 1
    done = fleet.wait(job_id)
    fleet.processes[dead].launch()
    fleet.wait_until_up()
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert [trial["failure"] for trial in done["trials"]] == [None, None]  # type: ignore[attr-defined]
    counts = fleet.counts(before)
    assert counts["taken trial/1"] == 0
    assert counts["end trial/1"] == 1
    log = fleet.client.get(f"/v1/jobs/{job_id}/artifacts/log.txt").text
    assert "trial/1: what was built ahead is lost or damaged, and is built again" in log


def test_a_cancelled_job_leaves_nothing_that_was_built_ahead(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(CONFIG, trials=3, seconds=60.0, ahead_seconds=0.5)
    wait_until(lambda: len(digests(fleet, job_id)) == 2, 30, fleet.logs)
    assert fleet.counts(before)["end trial/0"] == 0
    assert fleet.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    wait_until(lambda: digests(fleet, job_id) == set(), 10, fleet.logs)


def test_what_is_given_up_leaves_the_store_while_its_job_goes_on(fleet: Fleet) -> None:
    job_id = fleet.submit(CONFIG, trials=3, seconds=6.0, ahead_seconds=0.3, guesses=[[50, 51], [52], []])
    names = f"SELECT name FROM work_files WHERE job_id = '{job_id}' AND name LIKE 'ahead/%%' ORDER BY name"
    for pair in ((50, 51), (51, 52)):
        wait_until(lambda pair=pair: fleet.query(names) == [(f"ahead/{number}/engine",) for number in pair], 30, fleet.logs)  # type: ignore[misc]
    assert fleet.job(job_id)["state"] == "running"
    assert fleet.wait(job_id)["state"] == "succeeded"
