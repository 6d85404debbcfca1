"""Parts of a stage on several real cpu workers: found in order, each once, whoever dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.distributed.fleet import Fleet, running_fleet
from tests.fakes import executions
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.long  # each starts a database and several processes

WORKERS = ("one", "two", "three")
PROBES = 12


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("parts"), postgres.create_database(), *WORKERS) as fleet:
        yield fleet


def result_of(fleet: Fleet, job_id: str) -> object:
    """Return what the engine recorded of the job's step ``probe``."""
    rows = fleet.query(f"SELECT output FROM dbos.operation_outputs WHERE workflow_uuid = '{job_id}' AND function_name = 'probe'")
    return rows[0][0] if rows else None


def begun_parts(fleet: Fleet, after: int) -> list[int]:
    """Return the processes of parts that were begun."""
    return [int(line.split()[2]) for line in executions(fleet.record)[after:] if line.startswith("begin part/")]


def squares() -> str:
    return str([number**2 for number in range(PROBES)])


def test_idle_workers_measure_parts_which_come_together_in_order(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=0, probes=PROBES, seconds=0.7)
    owners: set[str] = set()

    def is_shared() -> bool:
        for pid in begun_parts(fleet, before):
            if psutil.pid_exists(pid):
                owners.add(fleet.owner(pid).name)
        return len(owners) == len(WORKERS)

    wait_until(is_shared, 30, fleet.logs)
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert sum(name.startswith("begin part/") for name in counts) == 2 * len(WORKERS)
    assert counts["begin joined"] == 1
    assert counts["begin probe"] == 0
    assert squares() in str(result_of(fleet, job_id))
    assert fleet.query(f"SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid LIKE '{job_id}:%%'") == [(0,)]
    wait_until(lambda: fleet.left_files() == [], 10)


def test_a_part_of_a_worker_that_is_killed_is_measured_again_and_no_other(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=0, probes=PROBES, seconds=1.0)
    driver = fleet.owner(fleet.wait_for_line("begin part/0-2", after=before)).name

    def helper() -> int | None:
        pids = [pid for pid in begun_parts(fleet, before) if psutil.pid_exists(pid)]
        return next((pid for pid in pids if fleet.owner(pid).name != driver), None)

    wait_until(lambda: helper() is not None, 20, fleet.logs)
    pid = helper()
    assert pid is not None
    dead = fleet.owner(pid)
    dead.end(signal.SIGKILL)
    done = fleet.wait(job_id)
    dead.launch()
    fleet.wait_until_up()
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert squares() in str(result_of(fleet, job_id))
    counts = fleet.counts(before)
    assert all(counts[name] == 1 for name in counts if name.startswith("end part/")), counts
    assert sum(count for name, count in counts.items() if name.startswith("begin part/")) <= 2 * len(WORKERS) + 2


def test_parts_that_were_measured_are_kept_when_the_worker_of_the_job_is_killed(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=0, probes=PROBES, seconds=1.0)
    driver = fleet.owner(fleet.wait_for_line("begin part/0-2", after=before))
    of_others = {"end part/8-10", "end part/10-12"}  # the last ones are given out first
    wait_until(lambda: bool(of_others & set(fleet.counts(before))), 30, fleet.logs)
    driver.end(signal.SIGKILL)
    done = fleet.wait(job_id)
    driver.launch()
    fleet.wait_until_up()
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert squares() in str(result_of(fleet, job_id))
    counts = fleet.counts(before)
    assert all(counts[name] <= 1 for name in of_others), counts
    assert counts["begin inspect"] == 1


def test_cancel_reaches_all_parts(fleet: Fleet) -> None:
    before = fleet.lines()
    job_id = fleet.submit(trials=0, probes=PROBES, seconds=30.0)
    wait_until(lambda: len(begun_parts(fleet, before)) == len(WORKERS), 30, fleet.logs)
    assert fleet.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in begun_parts(fleet, before)), 20, fleet.logs)
    wait_until(lambda: fleet.left_files() == [], 20, fleet.logs)
    assert fleet.wait(fleet.submit(trials=0, probes=3))["state"] == "succeeded"


def test_a_stage_is_measured_whole_where_all_workers_have_jobs_of_their_own(fleet: Fleet) -> None:
    before = fleet.lines()
    busy = [fleet.submit(trials=1, seconds=8.0) for _ in WORKERS[1:]]
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == len(busy), 30, fleet.logs)
    job_id = fleet.submit(trials=0, probes=4, seconds=0.1)
    done = fleet.wait(job_id)
    assert done["state"] == "succeeded"
    assert fleet.counts(before)["begin probe"] == 1
    assert begun_parts(fleet, before) == []
    for one in busy:
        fleet.wait(one)
