from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.time_model import (
    FIRST_GUESS_MS,
    FLOATS,
    LEAST_RATIO,
    EdgeTerm,
    TensorEdge,
    Term,
    Timed,
    TimeModel,
    converted,
    fit,
    form_of,
    term_ms,
    unblamed,
)
from engine_builder.search.times.borders import Border, BorderTerm, Reader
from engine_builder.search.times.kernel_sites import NeighbourTerm, SiteTerm
from engine_builder.search.times.layouts import Layout, Step

INT8, FP8, INT4 = Precision.INT8, Precision.FP8, Precision.INT4


def ints(names: Iterable[str]) -> dict[str, Precision]:
    return dict.fromkeys(names, INT8)


def in_int8(gains: Mapping[str, float]) -> dict[LayerPrecision, float]:
    return {LayerPrecision(name, INT8): gain for name, gain in gains.items()}


# input -> a -> b -> c -> output, every layer writing integers when it is quantized
CHAIN = (
    TensorEdge(None, ("a",), False, 1000),
    TensorEdge("a", ("b",), False, 200),
    TensorEdge("b", ("c",), False, 30),
    TensorEdge("c", (), True, 4),
)
# input -> a -> b, and add reads both a and b
RESIDUAL = (
    TensorEdge(None, ("a",), False, 1000),
    TensorEdge("a", ("b", "add"), False, 200),
    TensorEdge("b", ("add",), False, 30),
    TensorEdge("add", (), True, 4),
)
# a writes what b reads and what something that is always float reads
BRANCH = (TensorEdge(None, ("a",), False, 1000), TensorEdge("a", ("b",), True, 200), TensorEdge("b", (), True, 4))
# neither layer writes integers: a MatMul on a CPU
FLOAT_OUTPUTS = (TensorEdge(None, ("a",), False, 1000), TensorEdge(None, ("b",), False, 200))


@pytest.mark.parametrize(
    ("edges", "quantized", "expected"),
    [
        (CHAIN, "", 0),
        (CHAIN, "abc", 1000 + 4),  # quantized once at the start, dequantized once at the end
        (CHAIN, "a", 1000 + 200),
        (CHAIN, "b", 200 + 30),
        (CHAIN, "ac", 1000 + 200 + 30 + 4),  # a float FP32 fallback region costs at both of its ends
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
def test_counts_what_is_converted(edges: tuple[TensorEdge, ...], quantized: str | tuple[str, ...], expected: int) -> None:
    assert converted(edges, ints(quantized)) == expected


def test_a_layer_between_quantized_layers_saves_conversions() -> None:
    assert converted(CHAIN, ints("abc")) < converted(CHAIN, ints("ac"))


def test_the_baseline_takes_all_of_the_baselines_time() -> None:
    assert TimeModel(2.0, in_int8({"a": 0.5}), CHAIN, 1e-6, {INT8: 0.1}).ratio({}) == 1.0


def test_the_ratio_adds_up_gains_conversions_and_overhead() -> None:
    model = TimeModel(2.0, in_int8({"a": 0.5, "b": 0.25}), CHAIN, 1e-5, {INT8: 0.05})
    assert model.ratio({"a": INT8}) == pytest.approx((2.0 - 0.5 + 1e-5 * 1200 + 0.1 / 2) / 2.0)


def wide_world(seed: int = 0, layers: int = 12) -> tuple[dict[LayerPrecision, float], tuple[TensorEdge, ...]]:
    rng = np.random.default_rng(seed)
    names = [f"l{index}" for index in range(layers)]
    gains = {LayerPrecision(name, INT8): float(high * 0.6) for name, high in zip(names, rng.uniform(0.1, 1.0, layers), strict=True)}
    sizes = rng.integers(50_000, 400_000, layers + 1)
    edges = [TensorEdge(None, (names[0],), False, int(sizes[0]))]
    edges += [TensorEdge(one, (other,), False, int(size)) for (one, other), size in zip(itertools.pairwise(names), sizes[1:], strict=False)]
    return gains, (*edges, TensorEdge(names[-1], (), True, int(sizes[-1])))


def trials_of(model: TimeModel, count: int, seed: int = 0, noise: float = 0.0) -> list[Timed]:
    rng = np.random.default_rng(seed)
    names = [layer_precision.layer for layer_precision in model.gain_ms]
    assignments = [{}, ints(names)]
    assignments += [ints(name for name in names if rng.random() < 0.6) for _ in range(count)]
    return [Timed(quantized, model.ratio(quantized) * (1.0 + noise * float(rng.normal()))) for quantized in assignments]


@given(st.floats(0.2e-6, 10e-6), st.floats(0.0, 1.0), st.integers(0, 100))
@settings(max_examples=30)
def test_the_fit_finds_what_made_the_trials(kappa: float, overhead: float, seed: int) -> None:
    gains, edges = wide_world(seed)
    truth = TimeModel(8.0, gains, edges, kappa, {INT8: overhead / 12})
    found = fit(8.0, gains, edges, trials_of(truth, 6, seed))
    assert found.conversion_ms == pytest.approx(kappa, abs=0.1 * abs(kappa - FIRST_GUESS_MS) + 1e-12)  # drawn a little to the first guess
    for trial in trials_of(truth, 20, seed + 1):
        assert found.ratio(trial.quantized) == pytest.approx(trial.ratio, abs=0.03)


def test_the_fit_is_exact_for_everything_quantized() -> None:
    gains, edges = wide_world()
    truth = TimeModel(8.0, dict.fromkeys(gains, 0.2), edges, 5e-6, {INT8: 0.03})
    trials = trials_of(truth, 4, noise=0.05)
    assert fit(8.0, gains, edges, trials).ratio(trials[1].quantized) == pytest.approx(trials[1].ratio)


def test_noise_of_one_percent_leaves_predictions_within_a_few_percent() -> None:
    gains, edges = wide_world()
    truth = TimeModel(8.0, gains, edges, 3e-6, {INT8: 0.03})
    found = fit(8.0, gains, edges, trials_of(truth, 6, noise=0.01))
    assert all(found.ratio(trial.quantized) == pytest.approx(trial.ratio, abs=0.05) for trial in trials_of(truth, 30, seed=1))


@given(st.integers(0, 1000), st.floats(0.0, 0.5))
@settings(max_examples=30)
def test_a_conversion_never_takes_less_than_no_time(seed: int, noise: float) -> None:
    gains, edges = wide_world(seed)
    truth = TimeModel(8.0, gains, edges, 0.0, {})
    assert fit(8.0, gains, edges, trials_of(truth, 5, seed, noise)).conversion_ms >= 0.0


def test_conversions_and_overhead_that_cannot_be_told_apart_leave_the_first_guess() -> None:
    """Where each layer converts its own input, all of one size, conversions are as many as quantized layers: an overhead by another
    name.
    """
    gains = {LayerPrecision(f"l{index}", INT8): 0.5 for index in range(8)}
    edges = tuple(TensorEdge(None, (layer_precision.layer,), False, 10_000) for layer_precision in gains)
    truth = TimeModel(8.0, gains, edges, 4e-6, {INT8: 0.0375})
    trials = trials_of(truth, 6, noise=0.01)
    found = fit(8.0, gains, edges, trials)
    assert found.conversion_ms == pytest.approx(FIRST_GUESS_MS, rel=1e-3)
    assert all(found.ratio(trial.quantized) == pytest.approx(trial.ratio, abs=0.03) for trial in trials_of(truth, 10, seed=2))


def test_before_anything_quantized_was_timed_the_first_guess_holds() -> None:
    gains, edges = wide_world()
    for trials in ([], [Timed({}, 1.0)]):
        found = fit(8.0, gains, edges, trials)
        assert (found.conversion_ms, found.overhead_ms) == (FIRST_GUESS_MS, {})


@pytest.mark.parametrize(
    ("edges", "quantized", "expected"),
    [
        (CHAIN, {"a": FP8, "b": FP8, "c": FP8}, 1000 + 4),
        (CHAIN, {"a": INT8, "b": FP8, "c": FP8}, 1000 + 200 + 4),  # eight bits of either kind are not those of the other
        (CHAIN, {"a": INT4, "b": INT4, "c": INT4}, 0),  # of weights alone
        (CHAIN, {"a": INT8, "b": INT4, "c": INT8}, 1000 + 200 + 30 + 4),
        (RESIDUAL, {"a": INT8, "b": FP8, "add": INT8}, 1000 + 200 + 30 + 4),
        (BRANCH, {"a": FP8, "b": INT8}, 1000 + 200 + 200 + 4),  # stored three times: as it is written, as integers and as floats
    ],
)
def test_counts_conversions_between_precisions(edges: tuple[TensorEdge, ...], quantized: Mapping[str, Precision], expected: int) -> None:
    assert converted(edges, quantized) == expected


@pytest.mark.parametrize(
    ("quantized", "expected"),
    [
        ({}, 0),
        ({"q": INT8, "k": INT8, "v": INT8}, 0),  # the kernel that writes the tensor rounds it
        ({"q": INT8}, 100),  # and once more in floats
        ({"q": INT8, "k": INT8, "v": FP8}, 100),
        ({"q": INT8, "k": FP8}, 200),
        ({"q": INT4, "k": INT4, "v": INT4}, 0),
    ],
)
def test_a_tensor_whose_writer_rounds_it_is_stored_again_only_in_further_forms(quantized: Mapping[str, Precision], expected: int) -> None:
    assert converted((TensorEdge(None, ("q", "k", "v"), False, 100, is_fused=True),), quantized) == expected


def one_format_trials(model: TimeModel, names: Sequence[str], kinds: Sequence[Precision]) -> list[Timed]:
    assignments: list[dict[str, Precision]] = [{}, *(dict.fromkeys(names, kind) for kind in kinds)]
    return [Timed(quantized, model.ratio(quantized)) for quantized in assignments]


def test_each_precision_has_an_overhead_of_its_own() -> None:
    gains, edges = wide_world()
    names = [layer_precision.layer for layer_precision in gains]
    three = {
        LayerPrecision(name, kind): gain * share
        for (name, _), gain in zip(((n, 0) for n in names), gains.values(), strict=True)
        for kind, share in ((INT8, 1.0), (FP8, 0.8), (INT4, 0.3))
    }
    truth = TimeModel(8.0, three, edges, FIRST_GUESS_MS, {INT8: 0.02, FP8: 0.05, INT4: -0.01})
    found = fit(8.0, three, edges, one_format_trials(truth, names, (INT8, FP8, INT4)))
    assert found.overhead_ms == pytest.approx(truth.overhead_ms)
    mixed = dict(zip(names, itertools.cycle((INT8, FP8, INT4)), strict=False))
    assert found.ratio(mixed) == pytest.approx(truth.ratio(mixed))


def test_the_fit_is_exact_for_every_one_format_engine_in_noise() -> None:
    """The INT4 engine has INT8 where a layer has no INT4, as half of them do not."""
    gains, edges = wide_world()
    names = [layer_precision.layer for layer_precision in gains]
    both = gains | {LayerPrecision(name, INT4): 0.3 for name in names[::2]}
    assignments = [{}, ints(names), ints(names) | dict.fromkeys(names[::2], INT4), ints(names[:5]), ints(names[3:9])]
    trials = [Timed(quantized, ratio) for quantized, ratio in zip(assignments, (1.0, 0.71, 0.66, 0.93, 0.88), strict=True)]
    found = fit(8.0, both, edges, trials)
    assert [found.ratio(trial.quantized) for trial in trials[:3]] == pytest.approx([1.0, 0.71, 0.66])


def test_a_trial_that_was_timed_less_well_says_less_of_conversions() -> None:
    gains, edges = wide_world()
    names = [layer_precision.layer for layer_precision in gains]
    first = [Timed({}, 1.0), Timed(ints(names), 0.7)]

    def kappa(error: float) -> float:
        return fit(8.0, gains, edges, [*first, Timed(ints(names[::2]), 2.0, error)]).conversion_ms

    assert kappa(0.0) > kappa(0.05) > kappa(0.5) > FIRST_GUESS_MS


def test_a_slow_one_format_engine_blames_no_layer_but_a_fast_one_keeps_its_overhead() -> None:
    gains = in_int8({"a": 2.0, "b": 2.0}) | {LayerPrecision(name, FP8): 2.0 for name in "ab"}
    trials = [Timed(ints("ab"), 1.2), Timed(dict.fromkeys("ab", FP8), 0.9)]
    model = fit(10.0, gains, (), trials)
    assert model.overhead_ms[INT8] > 0.0
    freed = unblamed(model, trials)
    assert freed.overhead_ms == {INT8: 0.0, FP8: model.overhead_ms[FP8]}
    assert freed.ratio(ints("a")) == pytest.approx(0.8)  # what the kernel of a layer alone saves of 10 ms


class TermContract:
    """What the search relies on; a test class gives the ``term``."""

    def test_the_baseline_has_nothing_of_it(self, term: Term) -> None:
        assert term.milliseconds([FLOATS] * len(term.layers)) == 0.0

    def test_it_names_each_layer_once(self, term: Term) -> None:
        assert len(set(term.layers)) == len(term.layers) > 0

    def test_it_is_a_number_for_every_choice(self, term: Term) -> None:
        for forms in itertools.product((FLOATS, form_of(INT8)), repeat=len(term.layers)):
            assert np.isfinite(term.milliseconds(forms))
            assert term.milliseconds(forms) == term.milliseconds(forms)


BORDER = Border("a", Layout.BLOCKED_FLOATS, Layout.INTEGERS, (Reader("b", Layout.FLOATS, None), Reader("a", None, None)), (None,), 9)


class TestTerms(TermContract):
    @pytest.fixture(
        params=[
            *(EdgeTerm(edge, 1e-6) for edge in (*RESIDUAL, *BRANCH)),
            BorderTerm(BORDER, dict.fromkeys(Step, 0.5)),
            SiteTerm(("a",), ("b", "a"), {(False, False): 1.0, (True, True): 3.0}),
            NeighbourTerm("a", ("b", "c"), 1.0, 2.0),
        ],
        ids=lambda term: type(term).__name__,
    )
    def term(self, request: pytest.FixtureRequest) -> Term:
        found: Term = request.param
        return found


@pytest.mark.parametrize("quantized", ["", "a", "b", "ab", "abc"])
@pytest.mark.parametrize("edges", [CHAIN, BRANCH])
def test_terms_of_edges_add_up_to_the_conversions(edges: tuple[TensorEdge, ...], quantized: str) -> None:
    model = TimeModel(2.0, {}, edges, 1e-5, {})
    assert sum(term_ms(term, ints(quantized)) for term in model.terms) == pytest.approx(1e-5 * converted(edges, ints(quantized)))


def test_terms_of_kernels_take_the_place_of_conversions() -> None:
    model = TimeModel(2.0, in_int8({"a": 0.5}), CHAIN, 1.0, {}, (NeighbourTerm("b", ("a",), 0.1, 0.0),))
    assert model.ratio({"a": INT8}) == pytest.approx((2.0 - 0.5 + 0.1) / 2.0)


def test_no_ratio_is_ever_at_or_below_nothing() -> None:
    assert TimeModel(2.0, in_int8({"a": 5.0}), (), 0.0, {}).ratio({"a": INT8}) == LEAST_RATIO


def test_a_model_that_does_not_know_its_error_says_none() -> None:
    model = TimeModel(2.0, in_int8({"a": 0.5}), (), 0.0, {})
    assert model.error({"a": INT8}) == 0.0
    assert TimeModel(2.0, {}, (), 0.0, {}, certainty=lambda quantized: 0.1 * len(quantized)).error({"a": INT8}) == 0.1


def test_the_first_guess_of_a_gpu_keeps_what_was_not_timed_near_what_was() -> None:
    """A chain without sums: no trial tells conversions and overhead apart, so that the first guess is all that there is.

    With a processor's, 1.5e-6 ms an element, the conversions of 12 tensors would take ten times as long as the whole engine does.
    """
    gains = {LayerPrecision(f"l{index}", INT8): 0.02 for index in range(12)}
    names = [layer_precision.layer for layer_precision in gains]
    edges = tuple(TensorEdge(one, (other,), False, 800_000) for one, other in zip([None, *names], names, strict=False))
    trials = [Timed({}, 1.0), Timed(ints(names), 0.6)]
    half = ints(names[::2])
    guessed = fit(0.6, gains, edges, trials, first_guess_ms=3.7e-9)
    assert 0.6 <= guessed.ratio(half) < 1.2
    assert fit(0.6, gains, edges, trials).ratio(half) > 10.0


def test_gains_that_exceed_the_baseline_are_made_up_for_where_an_engine_was_timed() -> None:
    """Kernels timed one by one may save more than the whole engine takes; the overhead is what brings them to what was timed."""
    gains = in_int8({"a": 3.0, "b": 3.0})
    found = fit(2.0, gains, (), [Timed({}, 1.0), Timed(ints("ab"), 0.5)])
    assert found.ratio(ints("ab")) == pytest.approx(0.5)
