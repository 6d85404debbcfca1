"""What processes that have nothing to do cost their database, and that they are quick when something comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs import recovery
from service.jobs.runner import Runner
from tests.distributed.fleet import Fleet, running_fleet
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer
from tests.service.conftest import running_server

MOST_A_SECOND = 15.0  # transactions of an api and a worker that wait
COUNTED_SECONDS = 20.0
LEASE_SECONDS = 15.0  # as it is by default


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), postgres.create_database(), "one", lease_seconds=LEASE_SECONDS) as fleet:
        yield fleet


def transactions(fleet: Fleet) -> int:
    """Return how many there were on the database; the server counts those of others within a second."""
    where = "FROM pg_stat_database WHERE datname = current_database()"
    ((found,),) = fleet.query(f"SELECT xact_commit + xact_rollback {where}")
    return int(str(found))


@pytest.mark.long
def test_processes_that_wait_ask_the_database_seldom(fleet: Fleet) -> None:
    job_id = fleet.submit(trials=1, seconds=0.5)  # all caches are filled, and the queue was brisk once
    fleet.wait(job_id)
    wait_until(lambda: fleet.query("SELECT polling_interval_sec FROM dbos.queues WHERE name = 'jobs'") == [(0.5,)], 30)
    time.sleep(2)
    before, begun = transactions(fleet), time.monotonic()
    time.sleep(COUNTED_SECONDS)
    assert (transactions(fleet) - before) / (time.monotonic() - begun) <= MOST_A_SECOND


def test_a_worker_that_waits_is_woken_by_a_job_that_another_process_submits(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_QUIET_SECONDS", 600.0)
    monkeypatch.setattr(Runner, "hand_over", lambda runner, job_id: None)  # as where it came in elsewhere
    with running_server(tmp_path, database_url=postgres.create_database()) as server:
        for _ in range(2):
            assert server.wait(server.submit(trials=0)["id"], seconds=60)["state"] == "succeeded"
