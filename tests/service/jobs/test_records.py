from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import IllegalMoveError
from service.jobs.records import MOVES, USUAL_TRIALS, Job, JobState, NewJob, check_move, job_json
from tests.fakes import FakeClock

STATES = st.sampled_from(JobState)


@given(STATES, STATES)
def test_exactly_the_moves_of_the_diagram_are_accepted(old: JobState, new: JobState) -> None:
    drawn = {("queued", "running"), ("queued", "failed"), ("queued", "cancelled")}
    drawn |= {("running", "succeeded"), ("running", "failed"), ("running", "cancelled")}
    drawn |= {("on_hold", "running"), ("on_hold", "failed"), ("on_hold", "cancelled")}
    if (old.value, new.value) in drawn:
        check_move(old, new)
    else:
        with pytest.raises(IllegalMoveError, match=f"from {old} to {new}"):
            check_move(old, new)


@given(st.lists(STATES, max_size=8))
def test_no_sequence_of_moves_leaves_a_finished_state(wishes: list[JobState]) -> None:
    state = JobState.QUEUED
    was_finished = False
    for wish in wishes:
        if wish in MOVES[state]:
            assert not was_finished
            state = wish
        was_finished = state.is_finished


def test_job_json_has_exactly_the_keys_of_the_contract() -> None:
    clock = FakeClock()
    job = Job(1, NewJob("j", "onnxruntime-cpu", {"threads": 1}, {}), JobState.RUNNING, "search", 0.25, clock(), clock(), None)
    assert job_json(job, clock() + timedelta(seconds=10)) == {
        "id": "j",
        "state": "running",
        "hold": None,
        "stage": "search",
        "progress": 0.25,
        "eta_seconds": 30,
        "created_at": "2026-11-23T10:00:00Z",
        "started_at": "2026-11-23T10:00:00Z",
        "finished_at": None,
        "target": "onnxruntime-cpu",
        "config": {"threads": 1},
        "outputs": None,
        "trials": [],
        "best": None,
        "result": None,
        "error": None,
        "links": {"self": "/v1/jobs/j", "engine": "/v1/jobs/j/engine", "artifacts": "/v1/jobs/j/artifacts"},
    }


def searching(config: dict[str, object], *, met: bool = False, stage: str = "search") -> Job:
    """Return a job that is 100 s old, whose three engines took 40 s each."""
    clock = FakeClock()
    trials = [{"low_layers": layers, "seconds": seconds, "met": met} for layers, seconds in ((0, 1.0), (9, 60.0), (5, 20.0), (4, 40.0))]
    return Job(1, NewJob("j", "tensorrt", config, {}), JobState.RUNNING, stage, 0.8, clock(), clock(), None, trials)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (searching({}), (USUAL_TRIALS - 4) * 40),
        (searching({"search": {"max_trials": 6, "max_seconds": None}}), 2 * 40),
        (searching({"search": {"max_trials": None, "max_seconds": 190}}), 90),
        (searching({}, met=True), 40),  # lossless: only time is left to search for
        (searching({}, stage="report"), 25),  # by the progress alone
    ],
)
def test_what_builds_took_tells_how_long_the_search_goes_on(job: Job, expected: int) -> None:
    assert job_json(job, FakeClock()() + timedelta(seconds=100))["eta_seconds"] == expected


@pytest.mark.parametrize(("state", "progress"), [(JobState.QUEUED, 0.0), (JobState.RUNNING, 0.0), (JobState.SUCCEEDED, 1.0)])
def test_no_time_is_estimated_without_progress_to_judge_by(state: JobState, progress: float) -> None:
    clock = FakeClock()
    job = Job(1, NewJob("j", "onnxruntime-cpu", {}, {}), state, None, progress, clock(), clock(), None)
    assert job_json(job, clock())["eta_seconds"] is None
