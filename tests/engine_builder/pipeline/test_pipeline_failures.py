"""What goes wrong in a job: what is an engine's fault costs a trial, what is not ends the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from calibration.errors import InvalidModelError
from engine_builder.errors import BuildError, EngineError, StageCancelledError, StageCrashedError, StageMemoryError, StageTimeoutError
from tests.engine_builder.fake_job import HALFWAY, STAGE_SECONDS, FakeStages, reported, run


@pytest.mark.parametrize("error", [EngineError, BuildError, StageCrashedError, StageMemoryError, StageTimeoutError])
def test_an_engine_that_cannot_be_built_or_run_costs_one_trial(error: type[EngineError]) -> None:
    def failure(stage: str, request: Mapping[str, object]) -> Exception | None:
        is_half = stage == "trial" and len(cast(Mapping[str, str], request["low"])) == 8
        return error("no such kernel", fix="none") if is_half else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    trials = reported(stages)
    assert [(trial.low_layers, trial.failure) for trial in trials if trial.failure] == [(8, "no such kernel")]
    assert max(trial.low_layers for trial in trials if trial.met) == 7


@pytest.mark.parametrize("stage", ["inspect", "ranges", "repair", "sensitivity", "trial", "forecast", "verdict", "report"])
@pytest.mark.parametrize("error", [StageCancelledError("cancelled", fix="none"), InvalidModelError("no", fix="none")])
def test_a_cancelled_job_and_bad_input_end_the_job_at_once(stage: str, error: Exception) -> None:
    stages = FakeStages(HALFWAY, lambda kind, request: error if kind == stage else None)
    with pytest.raises(type(error)):
        run(stages)
    assert stages.calls[-1][1] == stage
    assert len(stages.names(stage)) == 1


@pytest.mark.parametrize("stage", ["ranges", "repair", "sensitivity", "verdict"])
def test_a_crash_of_a_stage_that_is_no_trial_fails_the_job(stage: str) -> None:
    with pytest.raises(StageCrashedError):
        run(FakeStages(HALFWAY, lambda kind, request: StageCrashedError("signal 11", fix="none") if kind == stage else None))


def attempts(stages: FakeStages) -> list[tuple[str, int, int]]:
    """Return name, finalists and engines timed of every verdict that was asked for."""
    asked = [(name, request) for name, kind, request, _ in stages.calls if kind == "verdict"]
    return [(name, len(cast(Sequence[object], request["finalists"])), cast(int, request["timed"])) for name, request in asked]


@pytest.mark.parametrize("error", [EngineError, StageCrashedError, StageMemoryError, StageTimeoutError])
def test_engines_that_cannot_be_timed_together_are_timed_alone(error: type[EngineError]) -> None:
    def failure(stage: str, request: Mapping[str, object]) -> Exception | None:
        return error("no room for four engines", fix="none") if stage == "verdict" and cast(int, request["timed"]) > 1 else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    (_, finalists, _), second = attempts(stages)
    assert second == ("verdict/1", finalists, 1)
    assert cast(Sequence[str], stages.request("report")["notes"])[-1].endswith("no room for four engines")


def test_a_finalist_that_fails_now_is_left_out() -> None:
    def failure(stage: str, request: Mapping[str, object]) -> Exception | None:
        is_fastest_in = stage == "verdict" and any(
            trial["low_layers"] == 8 for trial in cast(Sequence[Mapping[str, object]], request["finalists"])
        )
        return EngineError("it hangs", fix="none") if is_fastest_in else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    found = attempts(stages)
    assert found[-1] == ("verdict/2", found[0][1] - 1, 1)
    assert len(cast(Sequence[str], stages.request("report")["notes"])) == 2


def test_without_any_finalist_that_can_be_timed_the_baseline_alone_is_judged() -> None:
    def failure(stage: str, request: Mapping[str, object]) -> Exception | None:
        return EngineError("it hangs", fix="none") if stage == "verdict" and request["finalists"] else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert attempts(stages)[-1][1] == 0
    assert cast(Sequence[object], stages.request("report")["finalists"])


@pytest.mark.parametrize("error", [EngineError, BuildError, StageCrashedError, StageMemoryError, StageTimeoutError])
def test_a_failed_forecast_leaves_the_orders_to_bisect(error: type[EngineError]) -> None:
    stages = FakeStages(HALFWAY, lambda kind, request: error("no answer", fix="none") if kind == "forecast" else None)
    run(stages)
    assert stages.names("forecast") == ["forecast/search"]
    assert max(trial.low_layers for trial in reported(stages) if trial.met) == 8
    assert stages.request("report")["forecasts"] == []


def test_a_failed_second_forecast_ends_the_search_with_what_was_found() -> None:
    def failure(stage: str, request: Mapping[str, object]) -> Exception | None:
        return StageTimeoutError("too long", fix="none") if stage == "forecast" and "kernels_ms" in request else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert stages.names("forecast") == ["forecast/search", "forecast/refine"]
    assert len(cast(Sequence[object], stages.request("report")["forecasts"])) == 1


def test_where_no_engine_can_be_timed_at_first_the_orders_are_bisected_without_predictions() -> None:
    def failure(stage: str, request: Mapping[str, object]) -> Exception | None:
        return BuildError("too large", fix="none") if request.get("order") == "all_low" else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert stages.names("forecast") == []
    assert max(trial.low_layers for trial in reported(stages) if trial.met) == 8


def test_three_failures_in_a_row_end_the_search_and_the_job_still_reports() -> None:
    def failure(stage: str, request: Mapping[str, object]) -> Exception | None:
        return BuildError("no", fix="none") if stage == "trial" and request["low"] else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert len(stages.names("trial")) == 4
    assert stages.request("verdict")["finalists"] == []
    finished = len(stages.calls) - 3 - 1  # the failed trials, and the report itself
    seconds = STAGE_SECONDS * finished
    assert stages.request("report")["search"] == {"ended": "3 trials in a row failed", "trials": 4, "seconds": seconds}
