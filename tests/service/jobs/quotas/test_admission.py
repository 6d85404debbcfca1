from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.access.limits import Used
from service.errors import NotFoundError, QuotaExceededError
from service.jobs.store import JobStore
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[JobStore]:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", clock)
    store.tenants.ensure("vision")
    yield store
    store.close()


def submit(store: JobStore, name: str, *, opens_gpu: bool = False) -> None:
    store.create(new_job(name, tenant="vision"), admit=lambda connection: store.admission.admit(connection, "vision", opens_gpu=opens_gpu))


def test_what_is_used_is_counted_and_jobs_of_a_day_outlive_the_jobs(store: JobStore, clock: FakeClock) -> None:
    for name in "ab":
        submit(store, name)
    store.admission.charge("a", 90.0, on_gpu=True)
    store.admission.charge("b", 30.0, on_gpu=False)
    store.cancel("a")
    store.remove("a", "it was deleted")
    assert store.admission.usage("vision")[1] == Used(1, 2, 0, 1.5, 1.5, 0.5, 0.5)
    clock.advance(24 * 3600)
    assert store.admission.usage("vision")[1] == Used(1, 0, 0, 0.0, 1.5, 0.0, 0.5)
    assert store.admission.usage("default")[1] == Used()


def test_counts_outlive_a_restart(store: JobStore, tmp_path: Path, clock: FakeClock) -> None:
    submit(store, "a")
    again = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", clock)
    again.tenants.change("vision", {"jobs_per_day": 1})
    with pytest.raises(QuotaExceededError):
        submit(again, "b")
    again.close()


def test_minutes_of_one_kind_do_not_hold_up_jobs_of_the_other(store: JobStore) -> None:
    submit(store, "a")
    store.admission.charge("a", 60.0, on_gpu=True)
    store.tenants.change("vision", {"gpu_minutes_per_day": 1})
    with pytest.raises(QuotaExceededError, match="gpu minutes per day: 1 used of 1"):
        submit(store, "b", opens_gpu=True)
    submit(store, "c")


def test_a_refused_job_leaves_no_row_and_is_not_counted(store: JobStore) -> None:
    store.tenants.change("vision", {"jobs_at_once": 1})
    submit(store, "a")
    with pytest.raises(QuotaExceededError):
        submit(store, "b")
    with pytest.raises(NotFoundError):
        store.get("b")
    assert store.admission.usage("vision")[1].jobs_per_day == 1
    with pytest.raises(QuotaExceededError):
        store.admission.check("vision")
    store.cancel("a")
    store.admission.check("vision")
    submit(store, "c")


def test_of_many_at_the_same_moment_as_many_are_let_in_as_there_are_places(store: JobStore, tmp_path: Path, clock: FakeClock) -> None:
    """Two stores on one database, as two processes have it."""
    store.tenants.change("vision", {"jobs_at_once": 5})
    other = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", clock)
    gate = threading.Barrier(12)

    def try_to_submit(number: int) -> bool:
        gate.wait(20)
        try:
            submit(store if number % 2 else other, str(number))
        except QuotaExceededError:
            return False
        return True

    with ThreadPoolExecutor(12) as threads:
        assert sum(threads.map(try_to_submit, range(12))) == 5
    assert len(store.list()) == 5
    other.close()


def test_recovered_jobs_are_not_refused(store: JobStore) -> None:
    store.tenants.change("vision", {"jobs_at_once": 0})
    store.create(new_job("lost", tenant="vision"))


def test_seconds_of_a_job_that_is_gone_are_nobodys(store: JobStore) -> None:
    store.admission.charge("none", 60.0, on_gpu=False)
    assert store.admission.usage("default")[1] == Used()
