from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_builder.errors import StageCrashedError
from service.errors import DatabaseBusyError
from service.jobs.quotas.metering import MeteredChild
from service.jobs.store import JobStore
from service.worker.child_process import StageLimits
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    store.create(new_job("one"))
    yield store
    store.close()


def run(child: MeteredChild, *, opens_gpu: bool) -> dict[str, object]:
    limits = StageLimits(memory_bytes=2**30, seconds=60, opens_gpu=opens_gpu)
    return child("trial", {}, Path("jobs/one"), limits=limits, on_progress=lambda *_: None, should_cancel=lambda: False)


def minutes(store: JobStore) -> tuple[float, float]:
    _, used = store.admission.usage("default")
    return used.cpu_minutes_per_day, used.gpu_minutes_per_day


def test_the_time_of_stages_is_counted_by_what_they_run_on(store: JobStore) -> None:
    times = iter((0.0, 30.0, 100.0, 160.0))
    child = MeteredChild(lambda *_, **__: {"it": "ran"}, store.admission, clock=lambda: next(times))
    assert run(child, opens_gpu=False) == {"it": "ran"}
    run(child, opens_gpu=True)
    assert minutes(store) == (0.5, 1.0)


def test_what_was_done_ahead_counts_with_the_stage_that_uses_it_and_else_for_nobody(store: JobStore) -> None:
    times = iter((100.0, 106.0))
    ahead = MeteredChild(lambda *_, **__: {"result": {}, "seconds": 30.0}, store.admission, clock=lambda: next(times))
    limits = StageLimits(memory_bytes=2**30, seconds=60, opens_gpu=True, is_charged=False)
    ahead("prepare", {}, Path("jobs/one"), limits=limits, on_progress=lambda *_: None, should_cancel=lambda: False)
    assert minutes(store) == (0.0, 0.0)
    run(MeteredChild(lambda *_, **__: {"result": {}, "seconds": 36.0}, store.admission, clock=lambda: next(times)), opens_gpu=True)
    assert minutes(store)[1] == pytest.approx(0.6)


def test_a_gpu_that_was_idle_and_is_lent_counts_as_a_processor(store: JobStore) -> None:
    times = iter((0.0, 60.0))
    child = MeteredChild(lambda *_, **__: {}, store.admission, clock=lambda: next(times))
    limits = StageLimits(memory_bytes=2**30, seconds=60, opens_gpu=True, is_gpu_lent=True)
    child("sensitivity", {}, Path("jobs/one"), limits=limits, on_progress=lambda *_: None, should_cancel=lambda: False)
    assert minutes(store) == (1.0, 0.0)


def test_a_stage_that_crashes_is_counted_too(store: JobStore) -> None:
    def crash(*_: object, **__: object) -> dict[str, object]:
        raise StageCrashedError("it crashed", fix="Look.")

    times = iter((0.0, 60.0))
    with pytest.raises(StageCrashedError):
        run(MeteredChild(crash, store.admission, clock=lambda: next(times)), opens_gpu=False)
    assert minutes(store) == (1.0, 0.0)


def test_a_database_that_takes_no_note_costs_a_warning_and_no_stage(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DatabaseBusyError("database: another process holds it locked", fix="Try again.")

    monkeypatch.setattr(store.admission, "charge", refuse)
    with caplog.at_level(logging.WARNING):
        assert run(MeteredChild(lambda *_, **__: {"it": "ran"}, store.admission), opens_gpu=False) == {"it": "ran"}
    assert "job one: 0.0 s of its stage trial are not counted" in caplog.text
