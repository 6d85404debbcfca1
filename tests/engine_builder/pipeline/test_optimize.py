from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import pytest

from calibration.accuracy.verdict import Selection
from calibration.number_formats.precision import Precision
from engine_builder.errors import StageCrashedError
from engine_builder.pipeline.observer import best_index, public_trial
from engine_builder.pipeline.optimize import optimize
from engine_builder.pipeline.stage_table import STAGES
from engine_builder.records.trial import Accuracy, Trial, failed_trial
from engine_builder.stage_io.engines import PredictRequest, PredictResult, TrialRequest, VerdictRequest
from engine_builder.stage_io.measuring import (
    ConfidenceRequest,
    Decided,
    HessianRequest,
    HessianResult,
    InspectRequest,
    InteractionsRequest,
    RangesRequest,
    RangesResult,
    SensitivityRequest,
)
from engine_builder.stage_io.outcome import JobOutcome, ReportRequest
from tests.engine_builder.fake_job import (
    BASELINE,
    HALFWAY,
    KERNELS_MS,
    MODEL,
    Failure,
    FakeStages,
    Replay,
    Watcher,
    asked,
    never,
    reported,
    run,
)
from tests.engine_builder.search.fake_world import FakeWorld, fastest_met, rising

LOSSLESS = FakeWorld((0.0,) * 16)
SHOWN = ("inspect", "ranges", "search", "sensitivity", "dependency", "search", "refine", "report")


def test_every_stage_runs_in_its_order() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    kinds = [stage for stage, _ in itertools.groupby(stage for stage in (call.stage for call in stages.calls))]
    analysis = ["sensitivity", "hessian", "interactions", "rank"]
    searching = ["trial", "correct", *analysis, "predict", "trial", "predict"]
    assert kinds == ["inspect", "ranges", "biases", *searching, "verdict", "offers", "report"]
    # Of targets that build a baseline, of builders that have knobs, of users who ask for it, and of idle GPUs.
    assert set(kinds) == set(STAGES) - {"baseline", "route", "rebuild", "strip", "confidence", "prepare"}


def test_where_the_fastest_engine_keeps_the_budget_nothing_costly_is_corrected_and_no_layer_is_probed() -> None:
    stages = FakeStages(LOSSLESS)
    _, watcher = run(stages)
    assert [call.stage for call in stages.calls] == [
        "inspect", "ranges", "biases", "trial", "trial", "predict", "verdict", "offers", "report",
    ]  # fmt: skip
    assert [request.ranked for request in stages.requests(PredictRequest)] == [None]
    assert stages.reported.analysed is None
    assert "sensitivity" not in [stage for stage, _ in watcher.stages]


def test_who_asks_for_a_full_analysis_gets_one_before_anything_is_tried() -> None:
    stages = FakeStages(LOSSLESS)
    run(stages, asked(analysis="full"))
    kinds = [stage for stage, _ in itertools.groupby(call.stage for call in stages.calls)]
    assert kinds[3:9] == ["correct", "sensitivity", "hessian", "interactions", "rank", "trial"]
    assert stages.reported.analysed is not None


def test_without_corrections_there_is_no_stage_for_them() -> None:
    stages = FakeStages(HALFWAY)
    run(stages, asked(calibration={"repair": False}))
    assert stages.names("correct") == stages.names("biases") == []
    assert stages.reported.job.calibrated.corrections is None


def test_a_confidence_is_looked_at_before_anything_is_measured() -> None:
    stages = FakeStages(HALFWAY)
    run(stages, asked(accuracy={"metric": "top1", "min_relative": 0.999, "confidence": 0.9}))
    assert stages.names()[:3] == ["inspect", "confidence", "ranges"]
    assert [request.confidence for request in stages.requests(ConfidenceRequest)] == [0.9]


def test_the_result_is_that_of_the_report() -> None:
    result, _ = run(FakeStages(HALFWAY))
    assert result == JobOutcome({"outcome": "improved"}, "engine.onnx", BASELINE, {})


def test_names_are_unique() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    assert len(set(stages.names())) == len(stages.names())


@pytest.mark.parametrize("world", [HALFWAY, LOSSLESS, FakeWorld(rising(40, 0.02), budget=0.004)])
def test_progress_stays_within_0_and_1_and_never_falls(world: FakeWorld) -> None:
    stages = FakeStages(world)
    _, watcher = run(stages)
    spans = [call.span for call in stages.calls]
    assert all(0.0 <= start <= stop <= 1.0 for start, stop in spans)
    assert all(one[0] <= other[0] for one, other in itertools.pairwise(spans))
    assert all(one[1] <= other[0] + 1e-12 for one, other in itertools.pairwise(spans))
    entered = [progress for _, progress in watcher.stages]
    assert entered == sorted(entered)
    assert spans[-1][1] == 1.0


def test_only_stages_that_users_know_are_shown() -> None:
    _, watcher = run(FakeStages(HALFWAY))
    assert [stage for stage, _ in itertools.groupby(stage for stage, _ in watcher.stages)] == list(SHOWN)


def breaks_at_half(stage: str, request: object) -> Exception | None:
    is_half = isinstance(request, TrialRequest) and len(request.precisions) == 8
    return StageCrashedError("killed by signal 11", fix="none") if is_half else None


@pytest.mark.parametrize("failure", [never, breaks_at_half])
def test_a_replay_asks_for_the_same_and_runs_nothing_again(failure: Failure) -> None:
    replay, one, two = Replay(FakeStages(HALFWAY, failure)), Watcher(), Watcher()
    first = optimize(asked(), replay, one)
    requests, ran = list(replay.asked), len(replay.stages.calls)
    replay.asked.clear()
    second = optimize(asked(), replay, two)
    assert replay.asked == requests
    assert len(replay.stages.calls) == ran
    assert second == first
    assert two == one


@pytest.mark.parametrize("stop", range(1, 20, 4))
def test_a_job_that_was_cut_off_goes_on_where_it_was(stop: int) -> None:
    whole = FakeStages(HALFWAY)
    run(whole)
    replay = Replay(FakeStages(HALFWAY))

    def cut(name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        if len(replay.stages.calls) == stop:
            raise KeyboardInterrupt
        return replay(name, stage, request, span)

    with pytest.raises(KeyboardInterrupt):
        optimize(asked(), cut, Watcher())
    optimize(asked(), replay, Watcher())
    assert replay.stages.calls == whole.calls


def test_a_lossless_model_is_noticed_after_two_trials() -> None:
    stages = FakeStages(LOSSLESS)
    _, watcher = run(stages)
    assert len(stages.names("trial")) == 2
    assert watcher.trials == [(1, 0), (2, 1)]


def test_no_prediction_is_made_once_a_limit_is_reached() -> None:
    stages = FakeStages(HALFWAY)
    run(stages, asked(search={"max_trials": 2}))
    assert stages.names("predict") == []


def test_the_second_prediction_is_given_the_kernel_times_of_the_first_and_all_trials() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    first, second = stages.requests(PredictRequest)
    assert (first.kernels_ms, second.kernels_ms) == (None, KERNELS_MS)
    assert (len(first.trials), second.trials) == (2, reported(stages))


def test_steps_are_asked_for_where_the_model_of_latency_knows_borders() -> None:
    class Learned(FakeStages):
        def predict(self, name: str, request: PredictRequest) -> PredictResult:
            found = super().predict(name, request)
            return dataclasses.replace(found, time_model=dataclasses.replace(found.time_model, fitted="profiles"))

    plain, learned = FakeStages(HALFWAY), Learned(HALFWAY)
    run(plain)
    run(learned)
    assert [request.around for request in plain.requests(PredictRequest)] == [None, None]
    asked_around = [request for request in learned.requests(PredictRequest) if request.around is not None]
    assert asked_around
    best = fastest_met(reported(learned))
    assert asked_around[-1].around is not None
    assert asked_around[-1].around.starts[0] == best.fingerprint


def test_the_report_is_told_what_every_probe_ran_on() -> None:
    class Mixed(FakeStages):
        def hessian(self, name: str, request: HessianRequest) -> HessianResult:
            return dataclasses.replace(super().hessian(name, request), providers={"CUDAExecutionProvider": 2})

    stages = Mixed(HALFWAY)
    run(stages)
    assert stages.reported.analysed is not None
    providers = stages.reported.analysed.providers
    assert list(providers) == ["CPUExecutionProvider", "CUDAExecutionProvider"]
    assert providers["CUDAExecutionProvider"] == 2
    assert providers["CPUExecutionProvider"] == len(stages.requests(SensitivityRequest)) + len(stages.requests(InteractionsRequest))


def test_after_the_inspection_the_model_is_the_baseline() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    assert [request.files.model for request in stages.requests(InspectRequest)] == [MODEL]
    jobs = [
        call.request.job
        for call in stages.calls
        if isinstance(call.request, TrialRequest | PredictRequest | VerdictRequest | ReportRequest)
    ]
    assert {job.baseline for job in jobs} == {BASELINE}


def test_trials_are_named_by_their_fingerprint_and_numbered_in_turn() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    assert [request.index for request in stages.requests(TrialRequest)] == list(range(len(stages.names("trial"))))
    assert [f"trial/{trial.fingerprint}" for trial in reported(stages)] == stages.names("trial")


def test_finalists_go_to_the_verdict_safest_first() -> None:
    stages = FakeStages(HALFWAY)
    run(stages)
    assert [trial.low_layers for trial in stages.judged.finalists] == sorted(
        trial.low_layers for trial in reported(stages) if trial.met and trial.low_layers
    )


def sampled(world: FakeWorld, samples: int, on_search: Accuracy) -> FakeStages:
    """Return stages whose trials saw ``samples`` samples in all and ``on_search`` on the search's half."""

    class Sampled(FakeStages):
        def trial(self, name: str, request: TrialRequest) -> Trial:
            found = super().trial(name, request)
            assert found.on_all is not None
            known = dataclasses.replace(found.on_all, samples=samples)
            return dataclasses.replace(found, on_all=known, on_search=on_search if found.low_layers else known)

    return Sampled(world)


BAD = Accuracy(0.5, 0.9, -0.4, 0.4, binary=True, samples=500_000)


def test_with_enough_samples_the_search_looks_at_its_half_alone() -> None:
    stages = sampled(LOSSLESS, 1_000_000, BAD)
    run(stages)
    assert stages.judged.selection is Selection.HELD_OUT
    assert stages.judged.finalists == ()


def test_with_few_samples_search_and_verdict_share_them() -> None:
    stages = sampled(LOSSLESS, 100, BAD)
    run(stages)
    assert stages.judged.selection is Selection.SHARED
    assert len(stages.names("trial")) == 2


def test_a_budget_that_the_samples_cannot_tell_is_said_before_anything_is_probed() -> None:
    stages, watcher = FakeStages(HALFWAY, decided=Decided(100, has_margins=False)), Watcher()
    optimize(asked(), stages, watcher)
    assert watcher.notes == [
        "100 validation samples cannot tell a drop of 0.1% from none by counting (228 could, if no decision changed): an engine ships only "
        "if it changes no output of any sample"
    ]
    assert watcher.notes_at == ["inspect"]
    (report,) = stages.requests(ReportRequest)
    assert report.notes == tuple(watcher.notes)


def test_the_observer_is_told_the_best_so_far() -> None:
    stages = FakeStages(HALFWAY)
    _, watcher = run(stages)
    trials = reported(stages)
    assert watcher.trials[-1] == (len(trials), next(trial.index for trial in trials if trial.low_layers == 8))


def test_a_trial_is_public_as_the_contract_says() -> None:
    trial = HALFWAY.trial(3, HALFWAY.quantized(HALFWAY.layers[:4]), "loss")
    assert public_trial(trial) == {
        "index": 3,
        "fingerprint": trial.fingerprint,
        "order": "loss",
        "low_layers": 4,
        "accuracy": pytest.approx(0.8996),
        "latency_ms": {"median": 8.75, "p95": 9.625, "runs": 100},
        "ratio": pytest.approx(0.875),
        "met": True,
        "failure": None,
        "seconds": trial.seconds,
    }


def test_a_failed_trial_is_public_with_its_failure() -> None:
    found = public_trial(failed_trial(2, "f", {"a": Precision.INT8}, "loss", "no such kernel"))
    assert (found["met"], found["accuracy"], found["latency_ms"], found["failure"]) == (False, None, None, "no such kernel")


def test_only_layers_that_can_take_a_low_precision_take_it() -> None:
    class Unable(FakeStages):
        def ranges(self, name: str, request: RangesRequest) -> RangesResult:
            eligible = {layer: (Precision.INT8,) if layer < "layer004" else () for layer in self.world.layers}
            return dataclasses.replace(super().ranges(name, request), eligible=eligible)

    stages = Unable(HALFWAY)
    run(stages)
    all_quantized = next(trial for trial in reported(stages) if trial.order == "all_low")
    assert all_quantized.precisions == dict.fromkeys(HALFWAY.layers[:4], Precision.INT8)


def test_the_best_is_the_fastest_that_meets_the_budget() -> None:
    lengths = (0, 16, 4, 8, 9)
    trials = [HALFWAY.trial(index, HALFWAY.quantized(HALFWAY.layers[:length]), "loss") for index, length in enumerate(lengths)]
    assert best_index(trials) == 3
    assert best_index([]) is None
