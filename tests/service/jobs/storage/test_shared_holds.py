from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.jobs.records import JobState
from service.jobs.storage.holds import Hold
from service.jobs.store import JobStore
from tests.fakes import FakeClock
from tests.postgres_server import PostgresServer
from tests.service.jobs.test_store import new_job

FULL = Hold("disk: it is full", "Make room.", FakeClock()())


@pytest.fixture
def stores(postgres: PostgresServer) -> Iterator[tuple[JobStore, JobStore]]:
    """Those of a worker and of the process that answers callers."""
    url = postgres.create_database()
    pair = (JobStore(url, FakeClock()), JobStore(url, FakeClock()))
    yield pair
    for store in pair:
        store.close()


def test_what_a_worker_holds_is_seen_elsewhere(stores: tuple[JobStore, JobStore]) -> None:
    worker, api = stores
    worker.create(new_job("one"))
    worker.start("one")
    worker.holds.put("one", FULL)
    worker.holds.put("one", FULL)
    api.holds.refresh()
    assert (api.get("one").state, api.get("one").hold) == (JobState.ON_HOLD, FULL)
    assert api.counts() == {JobState.ON_HOLD: 1}
    worker.holds.put("one", replace(FULL, reason="disk: it fails", since=FULL.since.replace(year=2027)))
    api.holds.refresh()
    assert api.get("one").hold == replace(FULL, reason="disk: it fails")
    worker.holds.release("one")
    api.holds.refresh()
    assert (api.get("one").state, api.get("one").hold) == (JobState.RUNNING, None)


def test_what_a_dead_worker_held_goes_when_another_goes_on(stores: tuple[JobStore, JobStore]) -> None:
    dead, other = stores
    dead.holds.put("one", FULL)
    other.holds.release("one")
    other.holds.refresh()
    assert other.holds.find("one") is None
    assert other.holds.ids() == ()
