"""How long engines are timed: what is near a decision longer than what is far from it, and never longer than there is time."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import numpy as np
import pytest

from engine_builder.timed_enough import ROUGH, EachKnown, FinalistsKnown, TrialKnown, is_decided
from engine_builder.timing import MIN_GAIN, Enough, RelativeLatency, Timing, relative_latency, time_interleaved
from tests.engine_builder.noisy_machine import NOISES, NoisyMachine

BASELINE_SECONDS = 0.05
SEEDS = range(6)


@pytest.fixture(autouse=True, scope="module")
def frozen_objects() -> None:
    """Leave what is there already out of the collections that each timing begins with."""
    gc.collect()
    gc.freeze()


def timed(
    machine: NoisyMachine, ratios: Mapping[str, float], enough: Enough, *, seconds: float = 60.0, min_runs: int = 18, max_runs: int = 5000
) -> dict[str, Timing]:
    """Return the timings of engines that take so many times the baseline's time."""
    calls = {name: machine.engine(BASELINE_SECONDS * ratio) for name, ratio in {"baseline": 1.0, **ratios}.items()}
    return time_interleaved(
        calls,
        seconds=seconds,
        min_runs=min_runs,
        max_runs=max_runs,
        enough=enough,
        warm_up=0.0,
        clock=machine.clock,
        compared_by=machine.cpu,
    )


def rounds(noise: str, seed: int, ratio: float, enough: Enough) -> int:
    return len(timed(NoisyMachine(noise, seed, scale=2.0), {"engine": ratio}, enough)["engine"].block_ms)


@pytest.mark.parametrize("noise", NOISES)
def test_the_truth_is_within_two_standard_errors_of_nearly_every_ratio(noise: str) -> None:
    """Of ratios that were timed until their error seemed to be small enough, which favours errors that are too small."""
    off = []
    for seed in range(60):
        found = timed(NoisyMachine(noise, seed), {"engine": 0.8}, EachKnown(0.01), min_runs=9)
        relative = relative_latency(found["engine"], found["baseline"])
        assert relative.error > 0.0
        off.append(abs(relative.ratio - 0.8) / relative.error)
    # normal errors whose size is known: 0.05 and 0.003; here it is estimated from as few as nine rounds, and looked at after each
    assert float(np.mean(np.asarray(off) > 2.0)) < 0.16
    assert float(np.mean(np.asarray(off) > 4.0)) < 0.04


@pytest.mark.parametrize("noise", NOISES)
def test_a_trial_near_a_decision_gets_more_rounds_than_one_far_from_it(noise: str) -> None:
    far, near, over = (
        float(np.mean([rounds(noise, seed, 0.7, TrialKnown(bounds, best)) for seed in SEEDS]))
        for bounds, best in (((), 0.5), ((), 0.71), ((), None))
    )
    assert far <= 25.0
    assert near > 1.5 * far
    assert over <= far + 1.0  # over the budget nothing competes


@pytest.mark.parametrize("noise", NOISES)
def test_a_bound_that_is_near_is_a_decision_over_the_budget_too(noise: str) -> None:
    far, near = (float(np.mean([rounds(noise, seed, 0.7, TrialKnown((bound,))) for seed in SEEDS])) for bound in (0.9, 0.71))
    assert near > 1.5 * far


def test_what_later_engines_are_compared_with_is_known_better_than_what_is_beaten() -> None:
    best, beaten = (float(np.mean([rounds("jitter", seed, 0.6, TrialKnown((), best)) for seed in SEEDS])) for best in (1.0, 0.4))
    assert best > beaten
    found = timed(NoisyMachine("jitter", 3, scale=2.0), {"engine": 0.6}, TrialKnown((), 1.0))
    relative = relative_latency(found["engine"], found["baseline"])
    assert relative.error <= MIN_GAIN * relative.ratio


def test_the_limits_hold_whatever_is_undecided() -> None:
    undecided = TrialKnown((0.7,), 0.7)
    machine = NoisyMachine("jitter", 0, scale=10.0)
    timed(machine, {"engine": 0.7}, undecided, seconds=10.0)
    assert 10.0 < machine.clock() < 12.0  # six runs before, and the round that was under way
    found = timed(NoisyMachine("jitter", 0, scale=10.0), {"engine": 0.7}, undecided, max_runs=40)
    assert found["engine"].runs == 40


def test_without_noise_nine_rounds_do() -> None:
    found = timed(NoisyMachine("jitter", 0, scale=0.0), {"engine": 0.7}, TrialKnown((0.7,), 0.7))
    assert len(found["engine"].block_ms) == 18  # the fewest runs, one a block


@pytest.mark.parametrize(
    ("ratio", "error", "bounds", "expected"),
    [
        (0.7, 0.033, (0.8,), True),
        (0.7, 0.034, (0.8,), False),
        (0.7, 0.033, (0.8, 0.65), False),
        (0.7, 0.0023, (0.7,), True),  # a third of 1% of it: closer is as good as equal
        (0.7, 0.0024, (0.7,), False),
        (0.7, 1.0, (), True),
    ],
)
def test_an_error_decides_below_a_third_of_the_distance(ratio: float, error: float, bounds: tuple[float, ...], *, expected: bool) -> None:
    assert is_decided(RelativeLatency(ratio, 0.0, error), bounds) is expected


def test_the_only_engine_is_timed_until_its_own_latency_is_known() -> None:
    few, many = (len(timed(NoisyMachine("jitter", 1, scale=scale), {}, EachKnown(0.01))["baseline"].block_ms) for scale in (0.5, 4.0))
    assert few == 18
    assert many > 40


def test_finalists_far_apart_are_told_from_each_other_sooner_than_near_ones() -> None:
    def taken(fast: float, seed: int) -> int:
        found = timed(NoisyMachine("jitter", seed, scale=2.0), {"safe": 0.6, "fast": fast}, FinalistsKnown(("safe", "fast"), (0.97,)))
        return len(found["fast"].block_ms)

    far, near = (float(np.mean([taken(fast, seed) for seed in SEEDS])) for fast in (0.4, 0.595))
    assert near > 1.5 * far


def test_a_riskier_finalist_that_is_slower_decides_nothing() -> None:
    """The safer one is the fastest, so that no advantage has to be known."""

    def taken(order: tuple[str, str], seed: int) -> int:
        found = timed(NoisyMachine("jitter", seed, scale=2.0), {"one": 0.6, "other": 0.606}, FinalistsKnown(order, (0.97,)))
        return len(found["one"].block_ms)

    safer, riskier = (float(np.mean([taken(order, seed) for seed in SEEDS])) for order in (("one", "other"), ("other", "one")))
    assert safer < riskier


def test_without_finalists_the_baseline_alone_is_timed_until_it_is_known() -> None:
    found = timed(NoisyMachine("jitter", 1, scale=4.0), {}, FinalistsKnown((), (0.97,)))
    assert len(found["baseline"].block_ms) > 40


def test_nothing_is_known_from_fewer_than_nine_rounds() -> None:
    for enough in (TrialKnown((), None), EachKnown(ROUGH), FinalistsKnown(("engine",), ())):
        assert not enough({"baseline": [1.0] * 8, "engine": [0.5] * 8})
        assert enough({"baseline": [1.0] * 9, "engine": [0.5] * 9})
