"""A worker whose packets to or from the database vanish: it stops by itself, is taken over, and works again when the network does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import psutil
import pytest

from service.database.advisory_locks import tried_database_lock
from service.database.engine import open_engine
from tests.distributed.cut_network import CutNetwork, Direction, NoNetworkError, cut_network
from tests.distributed.fleet import Fleet, running_fleet
from tests.fakes import executions
from tests.faults.server_process import ROOT, wait_until
from tests.postgres_server import REASON, PostgresServer, binaries, running_postgres

TAKEOVER_SECONDS = 30.0  # what is promised
ALL = {"api", "near", "far"}


@pytest.fixture(scope="module")
def network() -> Iterator[CutNetwork]:
    """The network of the worker ``far``."""
    try:
        with cut_network() as network:
            yield network
    except NoNetworkError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def database(network: CutNetwork) -> Iterator[PostgresServer]:
    found = binaries()
    if found is None:
        pytest.skip(REASON)
    with running_postgres(found, network.own) as database:
        yield database


@pytest.fixture(scope="module")
def fleet(network: CutNetwork, database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder, url = tmp_path_factory.mktemp("fleet"), database.create_database()
    with running_fleet(folder, url, "near", "far", networks={"far": network}) as fleet:
        yield fleet


@pytest.mark.long
@pytest.mark.parametrize("direction", list(Direction))
def test_a_worker_that_is_cut_off_stops_and_is_taken_over(fleet: Fleet, network: CutNetwork, direction: Direction) -> None:
    before = fleet.lines()
    job_id, stage = begun_on_far(fleet, seconds=[10.0, 0.2])
    cut_at = fleet.lines()
    network.cut(direction)
    began = time.monotonic()
    try:
        wait_until(lambda: fleet.counts(cut_at)["begin trial/0"] == 1, TAKEOVER_SECONDS, fleet.logs)
        wait_until(lambda: not stage.is_running(), TAKEOVER_SECONDS - (time.monotonic() - began), fleet.logs)
        assert fleet.counts(before)["end trial/0"] == 0  # it was ended before it ended by itself
        wait_until(lambda: sessions_of(fleet, network) == 0, TAKEOVER_SECONDS, fleet.logs)
        done = fleet.wait(job_id)
    finally:
        network.mend()
    wait_until(lambda: fleet.holders() == ALL, TAKEOVER_SECONDS, fleet.logs)

    assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
    assert "its lease is lost" in fleet.processes["far"].log.read_text()
    begun = begun_on_far(fleet, seconds=[4.0, 0.2])[0]  # it takes work again
    assert fleet.wait(begun)["state"] == "succeeded"
    assert fleet.job(job_id) == done
    assert fleet.query(f"SELECT count(*) FROM job_events WHERE job_id = '{job_id}' AND kind = 'end'") == [(1,)]
    assert {name: count for name, count in fleet.counts(cut_at).items() if name in {"end trial/1", "begin report"}} == {
        "end trial/1": 2,  # of the job and of the one that came after
        "begin report": 2,
    }
    wait_until(lambda: fleet.left_files() == [], 10, fleet.logs)


@pytest.mark.long
def test_a_cut_of_seconds_costs_nothing(network: CutNetwork, database: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, url = tmp_path_factory.mktemp("steady"), database.create_database()
    with running_fleet(folder, url, "far", networks={"far": network}, lease_seconds=30.0) as fleet:
        job_id = fleet.submit(trials=3, seconds=[4.0, 4.0, 0.2])
        for trial, seconds in (("begin trial/0", 2.0), ("begin trial/1", 5.0)):
            fleet.wait_for_line(trial)
            network.cut()
            time.sleep(seconds)
            network.mend()
        done = fleet.wait(job_id)
        assert done["state"] == "succeeded", f"{done}\n{fleet.logs()}"
        assert set(fleet.counts().values()) == {1}
        assert "its lease is lost" not in fleet.logs()


def test_what_a_process_had_locked_is_free_when_it_is_cut_off(network: CutNetwork, database: PostgresServer) -> None:
    url = database.create_database()
    holds = (
        "import sys, time; from service.database.advisory_locks import database_lock; from service.database.engine import open_engine\n"
        "with database_lock(open_engine(sys.argv[1]), 'line'): print('held', flush=True); time.sleep(600)"
    )
    command = [*network.command, sys.executable, "-c", holds, url.replace("127.0.0.1", network.own)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        engine = open_engine(url)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with tried_database_lock(engine, "line") as is_free:
                assert not is_free
            network.cut()

            def is_free_now() -> bool:
                with tried_database_lock(engine, "line") as is_free:
                    return is_free

            wait_until(is_free_now, TAKEOVER_SECONDS)
        finally:
            network.mend()
            engine.dispose()
            holder.kill()


def sessions_of(fleet: Fleet, network: CutNetwork) -> int:
    """Return how many sessions the database keeps for the process in the network."""
    return int(str(fleet.query(f"SELECT count(*) FROM pg_stat_activity WHERE client_addr = '{network.other}'")[0][0]))


def begun_on_far(fleet: Fleet, seconds: Sequence[float]) -> tuple[str, psutil.Process]:
    """Return a job that the far worker has, and its stage, while the near one has nothing to do; each trial takes so many seconds."""
    before = fleet.lines()
    jobs = [fleet.submit(trials=len(seconds), seconds=seconds) for _ in range(2)]
    wait_until(lambda: fleet.counts(before)["begin trial/0"] == 2, 30, fleet.logs)
    found = fleet.query("SELECT executor_id, workflow_uuid FROM dbos.workflow_status WHERE status = 'PENDING'")
    owners = {str(owner): str(job) for owner, job in found}
    (other,) = set(jobs) - {owners["far"]}
    pids = [int(line.split()[-1]) for line in executions(fleet.record)[before:] if line.startswith("begin trial/0")]
    (stage,) = [pid for pid in pids if fleet.owner(pid).name == "far"]
    assert fleet.client.post(f"/v1/jobs/{other}/cancel").status_code == 200
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids if pid != stage), 20, fleet.logs)
    return owners["far"], psutil.Process(stage)
