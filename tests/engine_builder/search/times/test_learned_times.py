from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from engine_builder.search.time_model import FIRST_GUESS_MS, LEAST_RATIO, Timed, fit
from engine_builder.search.times.layouts import Step
from engine_builder.search.times.learned_times import GROUPS, LAYERS, MODELS, Fit, fit_learned
from tests.engine_builder.search.times.layered_world import BASELINE_MS, LayeredWorld, low

EXACT = LayeredWorld()
SLOW_BORDERS = LayeredWorld(conversions=1.6)
SLOW_LAYERS = LayeredWorld(overhead=0.15)


def fitted(world: LayeredWorld, count: int, noise: float = 0.0) -> Fit:
    """Return the fit to the baseline, the all-quantized engine and ``count`` mixed ones."""
    rng = np.random.default_rng(5)
    assignments = [{}, low(world.names), *world.mixed(count)]
    return fit_learned(world.costs, [world.timed(one, noise * float(rng.normal()) if one else 0.0) for one in assignments])


def errors(world: LayeredWorld, found: Fit) -> list[float]:
    """Return the relative errors of the predictions of 30 other engines."""
    return [abs(found.model().ratio(one) / world.ratio(one) - 1.0) for one in world.mixed(30, seed=1)]


def test_with_two_trials_it_says_what_the_profiles_say() -> None:
    assert max(errors(EXACT, fitted(EXACT, 0))) < 1e-6


def test_where_profiles_are_right_no_more_is_fitted() -> None:
    assert fitted(EXACT, 8, noise=0.003).name == "profiles"


def test_what_borders_cost_is_learned_where_profiles_are_wrong_about_it() -> None:
    found = fitted(SLOW_BORDERS, 8)
    assert found.name == "conversions"
    assert max(errors(SLOW_BORDERS, found)) < 0.02
    assert max(errors(SLOW_BORDERS, fitted(SLOW_BORDERS, 0))) > 0.05


def test_an_overhead_of_layers_is_told_from_conversions() -> None:
    found = fitted(SLOW_LAYERS, 8)
    assert LAYERS in MODELS[found.name]
    assert found.theta[GROUPS.index(LAYERS)] == pytest.approx(0.15 / SLOW_LAYERS.layers, rel=0.1)
    assert max(errors(SLOW_LAYERS, found)) < 0.02


def test_with_enough_trials_each_kind_of_conversion_is_learned() -> None:
    world = LayeredWorld(by_step={Step.UNBLOCK: 2.0, Step.DEQUANTIZE: 0.3})
    found = fitted(world, 20)
    assert max(errors(world, found)) < 0.03


def test_borders_that_elements_do_not_tell_are_beyond_the_model_of_elements() -> None:
    """A scattered engine and a run of as many layers: the layouts' costs are four times the first guess of one conversion's."""
    world = LayeredWorld(conversions=2.0)
    timed = [world.timed(one) for one in ({}, low(world.names), *world.mixed(3))]
    scattered = low(world.names[::2])
    by_elements = fit(BASELINE_MS, world.gain_ms, world.edges, timed[:2]).ratio(scattered)
    assert FIRST_GUESS_MS > 0.0
    assert (
        abs(fit_learned(world.costs, timed).model().ratio(scattered) - world.ratio(scattered))
        < abs(by_elements - world.ratio(scattered)) / 3
    )


@pytest.mark.parametrize("world", [EXACT, SLOW_BORDERS, SLOW_LAYERS, LayeredWorld(gains=0.8, alone=0.1)])
def test_most_predictions_are_within_two_of_their_errors(world: LayeredWorld) -> None:
    found = fitted(world, 8, noise=0.01)
    model = found.model()
    within = [abs(model.ratio(one) - world.ratio(one)) <= 2.0 * model.error(one) for one in world.mixed(40, seed=2)]
    assert np.mean(within) >= 0.9


def test_the_error_of_the_baseline_is_nothing_and_trials_lower_that_of_others() -> None:
    one = low(SLOW_BORDERS.names[::2])
    few, many = (fitted(SLOW_BORDERS, count).model() for count in (1, 12))
    assert few.error({}) == 0.0
    assert many.error(one) < few.error(one)


def test_a_noisy_trial_says_less() -> None:
    wrong = Timed(low(EXACT.names[::2]), 2.0, error=0.5)
    sure = Timed(low(EXACT.names[::2]), 2.0)
    right = [EXACT.timed(one) for one in ({}, low(EXACT.names))]
    doubted, believed = (fit_learned(EXACT.costs, [*right, one]).model() for one in (wrong, sure))
    one = EXACT.mixed(1)[0]
    assert abs(doubted.ratio(one) - EXACT.ratio(one)) <= abs(believed.ratio(one) - EXACT.ratio(one))


def test_what_the_error_of_a_timing_explains_is_no_error_of_the_model() -> None:
    timed = [EXACT.timed(one) for one in ({}, low(EXACT.names), *EXACT.mixed(8))]
    off = [replace(one, ratio=one.ratio + 0.1 * (-1) ** place) for place, one in enumerate(timed[2:])]
    known, unknown = (fit_learned(EXACT.costs, [*timed[:2], *(replace(one, error=error) for one in off)]) for error in (0.1, 0.0))
    assert unknown.left_out > 0.07
    assert known.left_out < 0.7 * unknown.left_out


def test_the_same_trials_give_the_same_model() -> None:
    first, second = fitted(SLOW_BORDERS, 6, noise=0.01), fitted(SLOW_BORDERS, 6, noise=0.01)
    assert first.name == second.name
    assert [first.model().ratio(one) for one in EXACT.mixed(5)] == [second.model().ratio(one) for one in EXACT.mixed(5)]


def test_no_ratio_is_ever_predicted_at_or_below_nothing() -> None:
    world = LayeredWorld(share=3.0)
    model = fit_learned(world.costs, [Timed({}, 1.0)]).model()
    assert model.ratio(low(world.names)) == LEAST_RATIO


def test_before_anything_is_timed_there_is_a_prediction_with_an_error() -> None:
    model = fit_learned(EXACT.costs, []).model()
    one = EXACT.mixed(1)[0]
    assert model.ratio(one) == pytest.approx(EXACT.ratio(one))
    assert 0.0 < model.error(one) < math.inf
