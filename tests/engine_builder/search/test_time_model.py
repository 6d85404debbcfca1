from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_builder.search.time_model import FIRST_GUESS_MS, Flow, Timed, TimeModel, converted, fit

# input -> a -> b -> c -> output, every layer writing integers when it is low
CHAIN = (
    Flow(None, ("a",), False, 1000),
    Flow("a", ("b",), False, 200),
    Flow("b", ("c",), False, 30),
    Flow("c", (), True, 4),
)
# input -> a -> b, and add reads both a and b
RESIDUAL = (
    Flow(None, ("a",), False, 1000),
    Flow("a", ("b", "add"), False, 200),
    Flow("b", ("add",), False, 30),
    Flow("add", (), True, 4),
)
# a writes what b reads and what something that is always float reads
BRANCH = (Flow(None, ("a",), False, 1000), Flow("a", ("b",), True, 200), Flow("b", (), True, 4))
# neither layer writes integers: a MatMul on a CPU
FLOAT_OUTPUTS = (Flow(None, ("a",), False, 1000), Flow(None, ("b",), False, 200))


@pytest.mark.parametrize(
    ("flows", "low", "expected"),
    [
        (CHAIN, "", 0),
        (CHAIN, "abc", 1000 + 4),  # quantized once at the start, dequantized once at the end
        (CHAIN, "a", 1000 + 200),
        (CHAIN, "b", 200 + 30),
        (CHAIN, "ac", 1000 + 200 + 30 + 4),  # a float island costs at both of its ends
        (RESIDUAL, ("a", "b", "add"), 1000 + 4),
        (RESIDUAL, ("add",), 200 + 30 + 4),
        (RESIDUAL, ("a", "b"), 1000 + 200 + 30),  # a's tensor is read as integers by b and as floats by the sum
        (RESIDUAL, ("b", "add"), 200 + 4),  # one conversion serves both readers
        (BRANCH, "ab", 1000 + 200 + 4),
        (BRANCH, "b", 200 + 4),
        (FLOAT_OUTPUTS, "ab", 1200),
        (FLOAT_OUTPUTS, "a", 1000),
    ],
)
def test_counts_what_is_converted(flows: tuple[Flow, ...], low: str | tuple[str, ...], expected: int) -> None:
    assert converted(flows, set(low)) == expected


def test_a_layer_between_low_layers_saves_conversions() -> None:
    assert converted(CHAIN, {"a", "b", "c"}) < converted(CHAIN, {"a", "c"})


def test_the_baseline_takes_all_of_the_baselines_time() -> None:
    assert TimeModel(2.0, {"a": 0.5}, CHAIN, 1e-6, 0.1).ratio(()) == 1.0


def test_the_ratio_adds_up_gains_conversions_and_overhead() -> None:
    model = TimeModel(2.0, {"a": 0.5, "b": 0.25}, CHAIN, 1e-5, 0.1)
    assert model.ratio({"a"}) == pytest.approx((2.0 - 0.5 + 1e-5 * 1200 + 0.1 / 2) / 2.0)


def wide_world(seed: int = 0, layers: int = 12) -> tuple[dict[str, tuple[float, float]], tuple[Flow, ...]]:
    rng = np.random.default_rng(seed)
    names = [f"l{index}" for index in range(layers)]
    kernels = {name: (float(high), float(high * 0.4)) for name, high in zip(names, rng.uniform(0.1, 1.0, layers), strict=True)}
    sizes = rng.integers(50_000, 400_000, layers + 1)
    flows = [Flow(None, (names[0],), False, int(sizes[0]))]
    flows += [Flow(one, (other,), False, int(size)) for (one, other), size in zip(itertools.pairwise(names), sizes[1:], strict=False)]
    return kernels, (*flows, Flow(names[-1], (), True, int(sizes[-1])))


def trials_of(model: TimeModel, count: int, seed: int = 0, noise: float = 0.0) -> list[Timed]:
    rng = np.random.default_rng(seed)
    names = list(model.gain_ms)
    lows = [frozenset[str](), frozenset(names)]
    lows += [frozenset(name for name in names if rng.random() < 0.6) for _ in range(count)]
    return [Timed(low, model.ratio(low) * (1.0 + noise * float(rng.normal()))) for low in lows]


@given(st.floats(0.2e-6, 10e-6), st.floats(0.0, 1.0), st.integers(0, 100))
@settings(max_examples=30)
def test_the_fit_finds_what_made_the_trials(kappa: float, overhead: float, seed: int) -> None:
    kernels, flows = wide_world(seed)
    truth = TimeModel(8.0, {name: high - low for name, (high, low) in kernels.items()}, flows, kappa, overhead)
    found = fit(8.0, kernels, flows, trials_of(truth, 6, seed))
    assert found.conversion_ms == pytest.approx(kappa, abs=0.1 * abs(kappa - FIRST_GUESS_MS) + 1e-12)  # drawn a little to the first guess
    for trial in trials_of(truth, 20, seed + 1):
        assert found.ratio(trial.low) == pytest.approx(trial.ratio, abs=0.03)


def test_the_fit_is_exact_for_everything_low() -> None:
    kernels, flows = wide_world()
    truth = TimeModel(8.0, dict.fromkeys(kernels, 0.2), flows, 5e-6, 0.4)
    trials = trials_of(truth, 4, noise=0.05)
    assert fit(8.0, kernels, flows, trials).ratio(trials[1].low) == pytest.approx(trials[1].ratio)


def test_noise_of_one_percent_leaves_predictions_within_a_few_percent() -> None:
    kernels, flows = wide_world()
    truth = TimeModel(8.0, {name: high - low for name, (high, low) in kernels.items()}, flows, 3e-6, 0.4)
    found = fit(8.0, kernels, flows, trials_of(truth, 6, noise=0.01))
    assert all(found.ratio(trial.low) == pytest.approx(trial.ratio, abs=0.05) for trial in trials_of(truth, 30, seed=1))


@given(st.integers(0, 1000), st.floats(0.0, 0.5))
@settings(max_examples=30)
def test_a_conversion_never_takes_less_than_no_time(seed: int, noise: float) -> None:
    kernels, flows = wide_world(seed)
    truth = TimeModel(8.0, {name: high - low for name, (high, low) in kernels.items()}, flows, 0.0, 0.0)
    assert fit(8.0, kernels, flows, trials_of(truth, 5, seed, noise)).conversion_ms >= 0.0


def test_conversions_and_overhead_that_cannot_be_told_apart_leave_the_first_guess() -> None:
    """Where each layer converts its own input, all of one size, conversions are as many as low layers: an overhead by another name."""
    kernels = {f"l{index}": (1.0, 0.5) for index in range(8)}
    flows = tuple(Flow(None, (name,), False, 10_000) for name in kernels)
    truth = TimeModel(8.0, dict.fromkeys(kernels, 0.5), flows, 4e-6, 0.3)
    trials = trials_of(truth, 6, noise=0.01)
    found = fit(8.0, kernels, flows, trials)
    assert found.conversion_ms == pytest.approx(FIRST_GUESS_MS, rel=1e-3)
    assert all(found.ratio(trial.low) == pytest.approx(trial.ratio, abs=0.03) for trial in trials_of(truth, 10, seed=2))


def test_before_anything_low_was_timed_the_first_guess_holds() -> None:
    kernels, flows = wide_world()
    for trials in ([], [Timed(frozenset(), 1.0)]):
        found = fit(8.0, kernels, flows, trials)
        assert (found.conversion_ms, found.overhead_ms) == (FIRST_GUESS_MS, 0.0)
