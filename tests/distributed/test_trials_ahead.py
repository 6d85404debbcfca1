"""Engines that are built on idle GPU workers before they are asked for, on real processes that pretend to have a GPU of one type."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from tests.distributed.fleet import Fleet
from tests.fakes import executions
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.long  # each starts a database and several processes

CONFIG = json.dumps({"target": "tensorrt-rtx", "gpu": "NVIDIA L4"})
WORKERS = ("gpu-0", "gpu-1", "gpu-2")


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("ahead"), postgres.create_database())
    try:
        fleet.add("api", "api")
        for name in ("one", "two"):
            fleet.add(name, "cpu")
        for name in WORKERS:
            fleet.add(name, "gpu", FAKE_GPU="L4")
        fleet.wait_until_up()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(autouse=True)
def _nothing_is_left(fleet: Fleet) -> Iterator[None]:
    """See that whatever a test does, no process, file or record of what was prepared is left once all jobs have ended."""
    yield
    wait_until(lambda: fleet.left_files() == [], 20, fleet.logs)
    wait_until(lambda: living(fleet, "prepare") == [], 20)
    wait_until(lambda: records(fleet) == 0, 10)


def records(fleet: Fleet) -> int:
    (row,) = fleet.query("SELECT count(*) FROM dbos.workflow_status WHERE name = 'prepare_stage'")
    return int(str(row[0]))


def living(fleet: Fleet, stage: str, after: int = 0) -> list[int]:
    """Return the processes of stages whose names begin so that have begun and live."""
    words = {"prepare": "begin ahead/", "trial": "begin trial/"}
    pids = [int(line.split()[2]) for line in executions(fleet.record)[after:] if line.startswith(words[stage])]
    return [pid for pid in pids if psutil.pid_exists(pid)]


def begun(counts: Counter[str]) -> int:
    return sum(count for name, count in counts.items() if name.startswith("begin ahead/"))


def taken(counts: Counter[str]) -> set[str]:
    return {name.split()[1] for name in counts if name.startswith("taken ")}


def test_trials_take_what_idle_workers_built_and_are_the_same_as_without(fleet: Fleet) -> None:
    before = fleet.lines()
    done = fleet.wait(fleet.submit(CONFIG, trials=4, prepare_seconds=2.0, seconds=0.5))
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert all(counts[f"end trial/{index}"] == 1 for index in range(4)), counts
    assert taken(counts) == {"trial/1", "trial/2", "trial/3"}
    assert begun(counts) == 3
    assert [trial["fingerprint"] for trial in done["trials"]] == [f"f{index}" for index in range(4)]  # type: ignore[attr-defined]
    log = fleet.client.get(f"/v1/jobs/{done['id']}/artifacts/log.txt").text
    assert log.count("built and scored ahead") == 3


def test_what_is_not_asked_for_is_given_up_and_changes_nothing(fleet: Fleet) -> None:
    before = fleet.lines()
    guesses = [[50, 51], [52], [], []]
    done = fleet.wait(fleet.submit(CONFIG, trials=4, seconds=2.0, ahead_seconds=4.0, guesses=guesses))
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert {counts[f"begin trial/{index}"] for index in range(4)} == {1}
    assert taken(counts) == set()
    assert counts["begin ahead/50"] == 1
    assert counts["end ahead/52"] <= 1


def test_no_more_than_the_limit_is_built_ahead_at_a_time(fleet: Fleet) -> None:
    before = fleet.lines()
    job = fleet.submit(CONFIG, trials=1, seconds=6.0, ahead_seconds=30.0, guesses=[[50, 51, 52, 53]])
    wait_until(lambda: len(living(fleet, "prepare", before)) == 2, 20, fleet.logs)
    fleet.wait(job)
    assert set(fleet.counts(before)) >= {"begin ahead/50", "begin ahead/51"}
    assert begun(fleet.counts(before)) == 2


def test_a_worker_that_is_killed_as_it_builds_ahead_costs_nothing(fleet: Fleet) -> None:
    before = fleet.lines()
    job = fleet.submit(CONFIG, trials=3, seconds=2.0, ahead_seconds=6.0)
    wait_until(lambda: len(living(fleet, "prepare", before)) == 2, 20, fleet.logs)
    dead = fleet.owner(living(fleet, "prepare", before)[0])
    dead.end(signal.SIGKILL)
    done = fleet.wait(job)
    dead.launch()
    fleet.wait_until_up()
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert {counts[f"end trial/{index}"] for index in range(3)} == {1}
    assert counts["begin trial/0"] == 1  # it did not run there


def test_the_worker_of_the_job_may_die_meanwhile_and_what_was_built_is_taken_by_the_next(fleet: Fleet) -> None:
    before = fleet.lines()
    job = fleet.submit(CONFIG, trials=2, seconds=5.0, prepare_seconds=1.0)
    wait_until(lambda: fleet.counts(before)["end ahead/1"] == 1, 20, fleet.logs)
    (row,) = fleet.query(f"SELECT executor_id FROM dbos.workflow_status WHERE workflow_uuid = '{job}'")
    owner = fleet.processes[str(row[0])]
    owner.end(signal.SIGKILL)
    done = fleet.wait(job)
    owner.launch()
    fleet.wait_until_up()
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert taken(counts) == {"trial/1"}
    assert counts["begin ahead/1"] == counts["end trial/0"] == counts["end trial/1"] == 1


def test_another_job_gets_a_gpu_at_once(fleet: Fleet) -> None:
    before = fleet.lines()
    first = fleet.submit(CONFIG, trials=1, seconds=40.0, guesses=[[50, 51]], ahead_seconds=60.0)
    wait_until(lambda: len(living(fleet, "prepare", before)) == 2, 30, fleet.logs)
    ahead = living(fleet, "prepare", before)
    middle = fleet.lines()
    second = fleet.submit(CONFIG, trials=1, seconds=0.1, guesses=[[]])
    done = fleet.wait(second, seconds=20)
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert fleet.job(first)["state"] == "running"  # all GPUs were busy, with it or for it
    assert fleet.counts(middle)["end trial/0"] == 1
    assert sum(psutil.pid_exists(pid) for pid in ahead) == 1  # one gave way, and one was enough
    assert fleet.client.post(f"/v1/jobs/{first}/cancel").json()["state"] == "cancelled"


def test_what_a_search_waits_for_by_now_is_not_given_up_for_another_job(fleet: Fleet) -> None:
    before = fleet.lines()
    first = fleet.submit(CONFIG, trials=2, seconds=3.0, ahead_seconds=10.0, guesses=[[1], [70, 71]])
    wait_until(lambda: fleet.counts(before)["end trial/0"] == 1, 30, fleet.logs)
    assert fleet.counts(before)["end ahead/1"] == 0  # it is waited for
    wait_until(lambda: fleet.counts(before)["begin ahead/71"] == 1, 20, fleet.logs)  # all GPUs are busy
    second = fleet.submit(CONFIG, trials=1, seconds=1.0, guesses=[[]])
    assert fleet.wait(second)["state"] == "succeeded"
    assert fleet.counts(before)["end ahead/1"] == 0  # another one gave way
    assert fleet.wait(first)["state"] == "succeeded"
    counts = fleet.counts(before)
    assert counts["begin ahead/1"] == counts["end ahead/1"] == 1
    assert taken(counts) == {"trial/1"}


def test_a_cancelled_job_ends_what_is_built_ahead_for_it(fleet: Fleet) -> None:
    before = fleet.lines()
    job = fleet.submit(CONFIG, trials=2, seconds=60.0, ahead_seconds=60.0)
    wait_until(lambda: len(living(fleet, "prepare", before)) == 1, 30, fleet.logs)
    assert fleet.client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    wait_until(lambda: living(fleet, "prepare", before) == [] == living(fleet, "trial", before), 10, fleet.logs)


def test_what_cannot_be_built_ahead_is_left_to_the_trial(fleet: Fleet) -> None:
    before = fleet.lines()
    done = fleet.wait(fleet.submit(CONFIG, trials=2, seconds=4.0, ahead_seconds=0.1, fail_ahead=True))
    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    counts = fleet.counts(before)
    assert begun(counts) == 1  # once is enough to know it
    assert counts["end trial/1"] == 1
    assert taken(counts) == set()
