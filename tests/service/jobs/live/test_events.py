from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.store import JobStore
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = opened(tmp_path)
    store.create(new_job("one"))
    store.start("one")
    yield store
    store.close()


def opened(folder: Path) -> JobStore:
    return JobStore(f"sqlite:///{folder / 'jobs.db'}", FakeClock())


def test_events_survive_the_process_and_go_on_in_their_numbers(store: JobStore, tmp_path: Path) -> None:
    before = store.events.after("one", 0)
    again = opened(tmp_path)
    again.log("one", "a line")
    assert again.events.after("one", 0)[:2] == before
    assert [event.number for event in again.events.after("one", 0)] == [1, 2, 3]
    again.close()


def test_what_was_written_lately_is_known_without_the_database(store: JobStore) -> None:
    store.log("one", "a line")
    assert store.events.recent_after("one", 0) == store.events.after("one", 0)
    assert store.events.recent_after("one", 3) == ()


def test_only_the_database_knows_what_another_process_wrote(store: JobStore, tmp_path: Path) -> None:
    again = opened(tmp_path)
    assert again.events.recent_after("one", 0) is None
    assert len(again.events.after("one", 0)) == 2
    assert again.events.recent_after("one", 2) == ()
    again.log("one", "a line")
    assert [event.number for event in again.events.recent_after("one", 2) or ()] == [3]
    assert again.events.recent_after("one", 0) is None  # the first two are not in its memory
    again.close()


def test_only_so_many_lines_stay_in_memory(store: JobStore) -> None:
    for number in range(300):
        store.log("one", str(number))
    assert store.events.recent_after("one", 0) is None
    assert len(store.events.recent_after("one", 290) or ()) == 12
    assert len(store.events.after("one", 0, limit=500)) == 302
    assert [event.number for event in store.events.after("one", 100, limit=3)] == [101, 102, 103]
