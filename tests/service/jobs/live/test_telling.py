from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.live.events import EventKind
from service.jobs.store import JobStore
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[JobStore]:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}", clock)
    store.create(new_job("one"))
    store.start("one")
    yield store
    store.close()


def told(store: JobStore, kind: EventKind) -> list[dict[str, object]]:
    return [dict(event.data) for event in store.events.after("one", 0) if event.kind is kind]


def test_events_are_numbered_and_told_in_their_order(store: JobStore) -> None:
    store.advance("one", "inspect", 0.0)
    store.record_trials("one", [{"index": 0}], 0)
    store.log("one", "a line")
    store.cancel("one")
    events = store.events.after("one", 0)
    assert [event.number for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.kind.value for event in events] == ["state", "state", "stage", "trial", "best", "log", "end"]
    assert events[-1].data == {"state": "cancelled", "outcome": None, "speedup": None, "error": None}
    assert [event.number for event in store.events.after("one", 5)] == [6, 7]


def test_a_change_that_is_refused_is_not_told(store: JobStore) -> None:
    store.cancel("one")
    before = store.events.after("one", 0)
    store.start("one")
    store.advance("one", "inspect", 0.5)
    store.record_trials("one", [{"index": 0}], 0)
    store.log("one", "a line")
    store.cancel("one")
    assert store.events.after("one", 0) == before


def test_replayed_trials_are_told_once(store: JobStore) -> None:
    store.record_trials("one", [{"index": 0}], 0)
    store.record_trials("one", [{"index": 0}, {"index": 1}], 1)
    store.record_trials("one", [{"index": 0}], 0)
    store.record_trials("one", [{"index": 0}, {"index": 1}], 1)
    assert told(store, EventKind.TRIAL) == [{"index": 0}, {"index": 1}]
    assert told(store, EventKind.BEST) == [{"best": 0}, {"best": 1}]


def test_trials_of_a_search_that_starts_anew_are_told_again(store: JobStore) -> None:
    store.record_trials("one", [{"index": 0}], 0)
    store.restart_search("one")
    store.record_trials("one", [{"index": 0}], 0)
    assert told(store, EventKind.RESTARTED) == [{}]
    assert told(store, EventKind.TRIAL) == [{"index": 0}, {"index": 0}]
    assert told(store, EventKind.BEST) == [{"best": 0}, {"best": 0}]


def test_progress_is_told_by_the_hundredth_or_after_a_silence(store: JobStore, clock: FakeClock) -> None:
    for progress in (0.1, 0.105, 0.2, 0.205):
        store.advance("one", "search", progress)
    clock.advance(6)
    store.advance("one", "search", 0.206)
    assert [stage["progress"] for stage in told(store, EventKind.STAGE)] == [0.1]
    gains = told(store, EventKind.PROGRESS)
    assert [event["progress"] for event in gains] == [0.2, 0.206]
    assert gains[-1]["eta_seconds"] == 20  # by what the preparation took: 6 s
