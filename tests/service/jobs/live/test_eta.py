from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from service.jobs.live.eta import FIRST_TRIALS, USUAL_ROUTES, USUAL_TRIALS, eta_seconds
from service.jobs.records import Job, JobState, NewJob
from tests.fakes import FakeClock

AFTER = 3 * 40 + 5  # engines' worth of time and seconds after the search
ROUTES = USUAL_ROUTES * 40  # less where the job took less before them


def at(progress: float, **builder: object) -> Job:
    """Return a job whose search is over."""
    return dataclasses.replace(searching({"builder": builder}, stage="report"), progress=progress)


def early(trials: int, *, progress: float) -> Job:
    """Return a job that has measured no sensitivities."""
    job = searching({"builder": {"build_routes": "off"}})
    return dataclasses.replace(job, trials=job.trials[:trials], progress=progress)


def searching(config: dict[str, object], *, met: bool = False, stage: str = "search") -> Job:
    """Return a job that is 100 s old, whose three engines took 40 s each."""
    clock = FakeClock()
    trials = [{"low_layers": layers, "seconds": seconds, "met": met} for layers, seconds in ((0, 1.0), (9, 60.0), (5, 20.0), (4, 40.0))]
    return Job(1, NewJob("j", "tensorrt", config, {}), JobState.RUNNING, stage, 0.8, clock(), clock(), None, trials)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (searching({}), (USUAL_TRIALS - 4) * 40 + ROUTES + AFTER),
        (searching({"builder": {"build_routes": "off"}}), (USUAL_TRIALS - 4) * 40 + AFTER),
        (searching({"builder": {"build_routes": "fast"}}), (USUAL_TRIALS - 4) * 40 + ROUTES + AFTER),
        (searching({"objective": {"min_speedup": 2.0}}), (USUAL_TRIALS - 4) * 40 + AFTER),
        (dataclasses.replace(searching({}, stage="routes"), progress=0.9), round(100 / 1.5 / 2) + AFTER),
        (searching({"search": {"max_trials": 6, "max_seconds": None}}), 2 * 40 + AFTER),
        (searching({"search": {"max_trials": None, "max_seconds": 190}}), 90 + AFTER),
        (searching({}, met=True), 40 + 100 + 40 + AFTER),  # lossless: only time is left to search for
        (searching({}, stage="sensitivity"), (USUAL_TRIALS - 4) * 40 + ROUTES + AFTER),  # the search goes on after it
        (early(4, progress=0.35), 40 + AFTER),  # one of the first engines may be inside the budget
        (early(2, progress=0.27), (FIRST_TRIALS - 2) * 60 + 3 * 60 + 5),
        (early(1, progress=0.18), (FIRST_TRIALS - 1) * 1 + 3 * 1 + 5),  # the baseline alone is measured
        (early(0, progress=0.05), 250 + 5),  # no engine yet: by what the preparation took
        (searching({}, stage="inspect"), AFTER),
        (at(0.92), AFTER),
        (at(0.95), AFTER - 40),  # engines are built again
        (at(0.96), AFTER - 70),
        (at(0.98), 4),
        (at(0.99), 4),
        (at(0.995), 2),
        (at(0.96, strip_weights=True), AFTER - 70 + 40 + 15),  # what is kept is built once more
        (at(0.985, strip_weights=True), 20 + 8 + 4),
        (at(0.99, strip_weights=True), 4),
        (at(1.0), 1),
    ],
)
def test_what_builds_took_tells_how_long_the_search_goes_on(job: Job, expected: int) -> None:
    assert eta_seconds(job, FakeClock()() + timedelta(seconds=100)) == expected


@pytest.mark.parametrize(("state", "progress"), [(JobState.QUEUED, 0.0), (JobState.RUNNING, 0.0), (JobState.SUCCEEDED, 1.0)])
def test_no_time_is_estimated_without_progress_to_judge_by(state: JobState, progress: float) -> None:
    clock = FakeClock()
    job = Job(1, NewJob("j", "onnxruntime-cpu", {}, {}), state, None, progress, clock(), clock(), None)
    assert eta_seconds(job, clock()) is None
