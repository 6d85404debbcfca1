"""What is kept with an objective: the most accurate engine that is fast enough in the final timing too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from calibration.accuracy.budget import Budget
from engine_builder.errors import EngineError
from engine_builder.pipeline.decide import largest_ratio
from engine_builder.pipeline.judge_finalists import TIMED_FINALISTS
from engine_builder.pipeline.observer import best_index, public_trial
from engine_builder.stage_io.engines import FinalLatency, VerdictRequest, VerdictResult
from engine_builder.stage_io.offers import OfferedEngine, OffersRequest, OffersResult
from engine_builder.timing import RelativeLatency
from tests.engine_builder.fake_job import MODEL, Failure, FakeStages, Watcher, asked, never, run
from tests.engine_builder.report_body import FULL_VERDICT
from tests.engine_builder.search.fake_world import FakeWorld, rising

WORLD = FakeWorld(rising(16, 0.01))
SPEED: Mapping[str, object] = {"objective": {"min_speedup": 1.25}, "accuracy": {"metric": "top1"}}
BASELINE_MS = 10.0


@dataclasses.dataclass
class Timed(FakeStages):
    """Stages whose final timing is that of the search, slowed down for the first so many engines."""

    slower: int = 0
    lost: frozenset[str] = frozenset()  # engines that are offered for no budget

    def offers(self, name: str, request: OffersRequest) -> OffersResult:
        engines = [
            OfferedEngine(
                fingerprint=trial.fingerprint,
                latency=request.latency[trial.fingerprint],
                accuracy=0.9,
                keeps=Budget(min_relative=0.9 + trial.low_layers / 1000),
                verdict=FULL_VERDICT,
                size_bytes=1,
                precisions={},
                assignment=MODEL,
                engine=MODEL,
            )
            for trial in request.engines
            if trial.fingerprint not in self.lost
        ]
        return OffersResult(tuple(engines))

    def verdict(self, name: str, request: VerdictRequest) -> VerdictResult:
        plain = super().verdict(name, request)
        baseline = {"baseline": FinalLatency(BASELINE_MS, None, None, 0)}
        if not request.finalists:
            return dataclasses.replace(plain, latency_ms=baseline)
        (trial,) = request.finalists
        assert trial.latency is not None
        is_slower = len(self.requests(VerdictRequest)) <= self.slower
        ratio = 0.99 if is_slower else trial.latency.ratio
        return dataclasses.replace(
            plain,
            chosen=trial.fingerprint,
            ratio=ratio,
            latency_ms={**baseline, trial.fingerprint: FinalLatency(BASELINE_MS * ratio, None, None, 0)},
            spread={trial.fingerprint: RelativeLatency(ratio, 0.0)},
        )


def decided(stages: FakeStages, **config: object) -> tuple[int | None, Watcher]:
    """Return how many layers of what is kept are quantized, None of the baseline, and who watched."""
    _, watcher = run(stages, asked(**(config or SPEED)))
    kept = stages.reported.verdict.chosen
    return next((trial.low_layers for trial in stages.reported.trials if trial.fingerprint == kept), None), watcher


@pytest.mark.parametrize("objective", [{"min_speedup": 1.25}, {"max_latency_ms": 0.8 * BASELINE_MS}])
def test_the_most_accurate_engine_that_is_fast_enough_is_kept(objective: dict[str, float]) -> None:
    stages = Timed(WORLD)
    layers, watcher = decided(stages, objective=objective, accuracy={"metric": "top1"})
    assert layers == 7  # 1 - 7 * 0.5 / 16 = 0.78; of 6 layers 0.81
    best = stages.reported.trials[watcher.trials[-1][1] or 0]
    assert best.low_layers == 7


def test_it_is_judged_at_the_tightest_budget_that_it_keeps_and_the_report_has_the_users_settings() -> None:
    stages = Timed(WORLD)
    decided(stages)
    (request,) = stages.requests(VerdictRequest)
    assert request.job.config.accuracy.min_relative == 0.907
    assert request.job.config.objective == stages.reported.job.config.objective
    assert stages.reported.job.config == asked(**SPEED).config


def test_an_engine_that_is_too_slow_in_the_final_timing_gives_way_to_the_next() -> None:
    stages = Timed(WORLD, slower=1)
    layers, _ = decided(stages)
    assert layers is not None
    assert layers > 7
    assert len(stages.names("verdict")) == len(set(stages.names("verdict"))) == 2


def test_after_a_few_that_are_too_slow_the_baseline_is_kept() -> None:
    stages = Timed(WORLD, slower=100)
    layers, _ = decided(stages)
    assert layers is None
    assert 2 <= len(stages.names("verdict")) <= TIMED_FINALISTS + 1
    assert stages.requests(VerdictRequest)[-1].finalists == ()


def test_an_engine_that_cannot_be_judged_gives_way_to_the_next() -> None:
    def failure(stage: str, request: object) -> Exception | None:
        is_first = isinstance(request, VerdictRequest) and request.finalists and request.finalists[0].low_layers == 7
        return EngineError("no memory", fix="none") if is_first else None

    stages = Timed(WORLD, failure)
    layers, _ = decided(stages)
    assert layers is not None
    assert layers > 7
    assert stages.reported.notes[-1].endswith("failed, so the next one was taken: no memory")


def test_an_engine_that_lost_nearly_everything_is_not_kept() -> None:
    plain = Timed(WORLD)
    decided(plain)
    best = plain.reported.verdict.chosen
    assert best is not None
    layers, _ = decided(Timed(WORLD, lost=frozenset({best})))
    assert layers is not None
    assert layers > 7


@pytest.mark.parametrize("failure", [never])
def test_where_nothing_is_fast_enough_the_baseline_is_kept_and_the_fastest_is_offered(failure: Failure) -> None:
    stages = Timed(WORLD, failure)
    layers, watcher = decided(stages, objective={"min_speedup": 5.0}, accuracy={"metric": "top1"})
    assert layers is None
    (request,) = stages.requests(OffersRequest)
    fastest = min(stages.reported.trials, key=lambda trial: trial.latency.ratio if trial.latency is not None else 1.0)
    assert request.always == (fastest.fingerprint,)
    assert watcher.trials[-1][1] is None


def test_a_baseline_that_is_fast_enough_is_the_answer() -> None:
    stages = Timed(WORLD)
    layers, watcher = decided(stages, objective={"max_latency_ms": 2 * BASELINE_MS}, accuracy={"metric": "top1"})
    assert (layers, len(stages.reported.trials)) == (None, 1)
    assert watcher.trials[-1] == (1, 0)


def test_a_trial_says_whether_it_is_fast_enough_in_the_place_of_whether_it_is_inside_the_budget() -> None:
    trial = WORLD.trial(1, WORLD.quantized(WORLD.layers[:8]), "loss")
    assert public_trial(trial)["met"] is False
    assert "fast_enough" not in public_trial(trial)
    assert [(public_trial(trial, ratio)["met"], public_trial(trial, ratio)["fast_enough"]) for ratio in (0.7, 0.8)] == [
        (None, False),
        (None, True),
    ]


def test_without_an_objective_there_is_no_ratio_to_reach() -> None:
    assert largest_ratio((), None) is None
    assert best_index((), 0.5) is None
