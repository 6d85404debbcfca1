from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import QuotaExceededError
from service.jobs.records import StoredFile
from service.jobs.store import JobStore
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job

FILE = StoredFile("a" * 64, 60)
OTHER = StoredFile("b" * 64, 50)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    store.tenants.ensure("vision")
    store.tenants.change("vision", {"stored_bytes": 100})
    yield store
    store.close()


def stored(store: JobStore, tenant: str) -> int:
    with store._engine.connect() as connection:
        return store.owners.stored_bytes(connection, tenant)


def test_whoever_has_not_sent_a_file_does_not_have_it(store: JobStore) -> None:
    store.owners.add("vision", FILE)
    assert store.owners.has("vision", FILE.sha256)
    assert not store.owners.has("default", FILE.sha256)
    assert not store.owners.has("visio_", FILE.sha256)


def test_a_file_past_the_limit_is_not_noted(store: JobStore) -> None:
    store.owners.add("vision", FILE)
    with pytest.raises(QuotaExceededError, match="quota stored bytes: 60 used of 100, and this adds 50"):
        store.owners.add("vision", OTHER)
    assert not store.owners.has("vision", OTHER.sha256)
    store.owners.add("vision", FILE)  # it is here: nothing is added
    store.owners.add("default", OTHER)  # without a limit
    assert (stored(store, "vision"), stored(store, "default")) == (60, 50)


def test_what_jobs_left_counts_and_what_is_both_counts_once(store: JobStore) -> None:
    store.owners.add("vision", FILE)
    for name, tenant in (("one", "vision"), ("two", "default")):
        store.create(new_job(name, tenant=tenant))
        store.start(name)
        store.succeed(name, {}, "a", {"a": FILE, "b": OTHER})
    assert (stored(store, "vision"), stored(store, "default")) == (110, 110)
    assert store.owners.has("default", OTHER.sha256)
    store.remove("one", "it was deleted")
    assert stored(store, "vision") == 60


def test_forgotten_files_are_nobodys(store: JobStore) -> None:
    for tenant in ("vision", "default"):
        store.owners.add(tenant, FILE)
    store.owners.forget([FILE.sha256], "vision")
    assert not store.owners.has("vision", FILE.sha256)
    assert store.owners.has("default", FILE.sha256)
    store.owners.forget([FILE.sha256])
    assert not store.owners.has("default", FILE.sha256)
