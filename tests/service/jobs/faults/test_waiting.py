from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import InsufficientStorageError
from service.jobs.faults import waiting
from service.jobs.faults.waiting import MOST_UNEXPLAINED, Patience
from service.jobs.records import JobState, NewJob
from service.jobs.resources import Deps
from service.jobs.storage.holds import Hold
from service.settings import Settings
from tests.service.launch_server import fake_deps

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Ended(BaseException):
    pass


@pytest.fixture
def deps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deps]:
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.01)
    deps = fake_deps(Settings(data_dir=tmp_path / "data", min_free_bytes=0), tmp_path / "record")
    for name in ("one", "two"):
        deps.store.create(NewJob(id=name, target="onnxruntime-cpu", config={}, inputs={}))
    yield deps
    deps.close()


def test_what_failed_for_the_disk_runs_again_and_the_job_is_on_hold_meanwhile(deps: Deps) -> None:
    seen: list[JobState] = []
    errors = [FULL, FULL]

    def look() -> None:
        seen.append(deps.store.get("one").state)
        held = deps.store.list(states=(JobState.ON_HOLD,))
        assert [job.id for job in held] == ["one"]
        assert [job.id for job in deps.store.list(states=(JobState.QUEUED,))] == ["two"]
        assert held[0].hold is not None
        assert "No space left" in held[0].hold.reason

    def work() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert Patience(deps, "one", look).run(work) == "done"
    assert set(seen) == {JobState.ON_HOLD}
    assert deps.store.get("one").state is JobState.QUEUED
    assert deps.store.list(states=(JobState.ON_HOLD,)) == ()


def test_a_disk_with_room_under_which_it_fails_again_and_again_ends_it(deps: Deps) -> None:
    runs = []

    def work() -> None:
        runs.append(1)
        raise FULL

    with pytest.raises(InsufficientStorageError, match="No space left"):
        Patience(deps, "one", lambda: None).run(work)
    assert len(runs) == MOST_UNEXPLAINED + 1


def test_other_errors_are_no_matter_of_patience(deps: Deps) -> None:
    def work() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        Patience(deps, "one", lambda: None).run(work)


def test_who_waits_is_told_of_the_end(deps: Deps) -> None:
    def work() -> None:
        raise FULL

    with pytest.raises(Ended):
        Patience(deps, "one", Ended).run(work)
    assert deps.store.holds.ids() == ()


def test_a_finished_job_is_never_on_hold(deps: Deps) -> None:
    def look() -> None:
        deps.store.cancel("one")
        assert deps.store.get("one").state is JobState.CANCELLED
        assert deps.store.list(states=(JobState.ON_HOLD,)) == ()
        raise Ended

    with pytest.raises(Ended):
        Patience(deps, "one", look).run(lambda: (_ for _ in ()).throw(FULL))


def test_lists_and_figures_show_a_job_on_hold(deps: Deps) -> None:
    deps.store.start("one")
    deps.store.holds.put("one", Hold("disk: it is full", "Make room.", deps.clock()))
    assert [(row.id, row.state) for row in deps.store.rows(limit=9)] == [("two", JobState.QUEUED), ("one", JobState.ON_HOLD)]
    assert [row.id for row in deps.store.rows(states=(JobState.ON_HOLD,), limit=9)] == ["one"]
    assert deps.store.rows(states=(JobState.RUNNING,), limit=9) == ()
    assert deps.store.counts() == {JobState.QUEUED: 1, JobState.ON_HOLD: 1}
    deps.store.holds.release("one")
    assert deps.store.counts() == {JobState.QUEUED: 1, JobState.RUNNING: 1}
