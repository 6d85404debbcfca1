"""What goes wrong in a job: what is an engine's fault costs a trial, what is not ends the job."""

from __future__ import annotations

import dataclasses

import pytest

from calibration.errors import InvalidModelError
from engine_builder.errors import BuildError, EngineError, StageCancelledError, StageCrashedError, StageMemoryError, StageTimeoutError
from engine_builder.stage_io.engines import PredictRequest, TrialRequest, VerdictRequest
from engine_builder.stage_io.measuring import InspectRequest, InspectResult, RankRequest, SensitivityRequest
from engine_builder.stage_io.outcome import SearchSummary
from tests.engine_builder.fake_job import HALFWAY, STAGE_SECONDS, FakeStages, asked, reported, run


class WithSums(FakeStages):
    """The second half of the layers only adds: without them an engine is tried before any loss is asked for."""

    def inspect(self, name: str, request: InspectRequest) -> InspectResult:
        return dataclasses.replace(super().inspect(name, request), residual_adds=self.world.layers[8:])


@pytest.mark.parametrize("error", [EngineError, BuildError, StageCrashedError, StageMemoryError, StageTimeoutError])
def test_an_engine_that_cannot_be_built_or_run_costs_one_trial(error: type[EngineError]) -> None:
    def failure(stage: str, request: object) -> Exception | None:
        is_half = isinstance(request, TrialRequest) and len(request.precisions) == 8
        return error("no such kernel", fix="none") if is_half else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    trials = reported(stages)
    assert [(trial.low_layers, trial.failure) for trial in trials if trial.failure] == [(8, "no such kernel")]
    assert max(trial.low_layers for trial in trials if trial.met) == 7


@pytest.mark.parametrize("stage", ["inspect", "ranges", "correct", "sensitivity", "trial", "predict", "verdict", "report"])
@pytest.mark.parametrize("error", [StageCancelledError("cancelled", fix="none"), InvalidModelError("no", fix="none")])
def test_a_cancelled_job_and_bad_input_end_the_job_at_once(stage: str, error: Exception) -> None:
    stages = FakeStages(HALFWAY, lambda kind, request: error if kind == stage else None)
    with pytest.raises(type(error)):
        run(stages)
    assert stages.calls[-1].stage == stage
    assert len(stages.names(stage)) == 1


@pytest.mark.parametrize("stage", ["ranges", "biases", "verdict"])
def test_a_crash_of_a_stage_that_is_no_trial_fails_the_job(stage: str) -> None:
    with pytest.raises(StageCrashedError):
        run(FakeStages(HALFWAY, lambda kind, request: StageCrashedError("signal 11", fix="none") if kind == stage else None))


FAILED = [EngineError, StageCrashedError, StageMemoryError, StageTimeoutError]


@pytest.mark.parametrize("stage", ["sensitivity", "rank"])
@pytest.mark.parametrize("error", FAILED)
@pytest.mark.parametrize("analysis", ["auto", "full"])
def test_without_losses_the_search_ends_with_the_engines_that_were_measured(stage: str, error: type[EngineError], analysis: str) -> None:
    stages = WithSums(HALFWAY, lambda kind, request: error("signal 11", fix="none") if kind == stage else None)
    run(stages, asked(analysis=analysis))
    assert [trial.order for trial in reported(stages)] == ["baseline", "all_low", "products"]
    assert [trial.low_layers for trial in stages.judged.finalists] == [8]
    (warning,) = stages.reported.analysis_failures
    assert "failed" in warning
    assert "the search ended with what it had tried: signal 11" in warning
    assert stages.reported.analysed is None
    assert len(stages.names(stage)) == 1  # not asked again


@pytest.mark.parametrize(("stage", "left_out"), [("hessian", "follow the losses alone"), ("interactions", "no pair of layers was tested")])
@pytest.mark.parametrize("error", FAILED)
def test_what_the_losses_do_without_costs_no_trial(stage: str, left_out: str, error: type[EngineError]) -> None:
    whole, stages = (
        FakeStages(HALFWAY),
        FakeStages(HALFWAY, lambda kind, request: error("too large", fix="none") if kind == stage else None),
    )
    run(whole)
    run(stages)
    assert stages.names("trial") == whole.names("trial")
    (warning,) = stages.reported.analysis_failures
    assert left_out in warning
    (request,) = stages.requests(RankRequest)
    assert (request.traces, request.tests) == ((), ())
    assert stages.reported.analysed is not None
    assert whole.reported.analysis_failures == ()


def test_losses_of_the_first_samples_do_where_later_ones_cannot_be_probed() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        return StageTimeoutError("too slow", fix="none") if isinstance(request, SensitivityRequest) and request.start else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    (request,) = stages.requests(RankRequest)
    assert [file.file for file in request.losses] == ["sensitivity/0.npz"]
    assert "losses are of 20 samples only" in stages.reported.analysis_failures[0]
    assert max(trial.low_layers for trial in reported(stages) if trial.met) == 8


def attempts(stages: FakeStages) -> list[tuple[str, int, int]]:
    """Return name, finalists and engines timed of every verdict that was asked for."""
    asked = zip(stages.names("verdict"), stages.requests(VerdictRequest), strict=True)
    return [(name, len(request.finalists), request.most_timed) for name, request in asked]


@pytest.mark.parametrize("error", [EngineError, StageCrashedError, StageMemoryError, StageTimeoutError])
def test_engines_that_cannot_be_timed_together_are_timed_alone(error: type[EngineError]) -> None:
    def failure(stage: str, request: object) -> Exception | None:
        return error("no room for four engines", fix="none") if isinstance(request, VerdictRequest) and request.most_timed > 1 else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    (_, finalists, _), second = attempts(stages)
    assert second == ("verdict/1", finalists, 1)
    assert stages.reported.notes[-1].endswith("no room for four engines")


def test_a_finalist_that_fails_now_is_left_out() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        is_fastest_in = isinstance(request, VerdictRequest) and any(trial.low_layers == 8 for trial in request.finalists)
        return EngineError("it hangs", fix="none") if is_fastest_in else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    found = attempts(stages)
    assert found[-1] == ("verdict/2", found[0][1] - 1, 1)
    assert len(stages.reported.notes) == 2


def test_without_any_finalist_that_can_be_timed_the_baseline_alone_is_judged() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        return EngineError("it hangs", fix="none") if isinstance(request, VerdictRequest) and request.finalists else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert attempts(stages)[-1][1] == 0
    assert stages.reported.finalists


@pytest.mark.parametrize("error", [EngineError, BuildError, StageCrashedError, StageMemoryError, StageTimeoutError])
def test_a_failed_prediction_leaves_the_orders_to_bisect(error: type[EngineError]) -> None:
    stages = FakeStages(HALFWAY, lambda kind, request: error("no answer", fix="none") if kind == "predict" else None)
    run(stages)
    assert stages.names("predict") == ["predict/search"]
    assert max(trial.low_layers for trial in reported(stages) if trial.met) == 8
    assert stages.reported.forecasts == ()


def test_a_failed_second_prediction_ends_the_search_with_what_was_found() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        return StageTimeoutError("too long", fix="none") if isinstance(request, PredictRequest) and request.kernels_ms else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert stages.names("predict") == ["predict/search", "predict/refine"]
    assert len(stages.reported.forecasts) == 1


def test_where_no_engine_can_be_timed_at_first_the_orders_are_bisected_without_predictions() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        return BuildError("too large", fix="none") if isinstance(request, TrialRequest) and request.proposed_by == "all_low" else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert stages.names("predict") == []
    assert max(trial.low_layers for trial in reported(stages) if trial.met) == 8


def test_three_failures_in_a_row_end_the_search_and_the_job_still_reports() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        return BuildError("no", fix="none") if isinstance(request, TrialRequest) and request.precisions else None

    stages = FakeStages(HALFWAY, failure)
    run(stages)
    assert len(stages.names("trial")) == 4
    assert stages.judged.finalists == ()
    finished = len(stages.calls) - 3 - 1  # the failed trials, and the report itself
    seconds = STAGE_SECONDS * finished
    assert stages.reported.search == SearchSummary("3 trials in a row failed", 4, seconds)
