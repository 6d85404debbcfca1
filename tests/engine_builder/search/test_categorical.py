"""The search over several precisions as a whole, in worlds small enough to try every assignment."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Trial
from tests.engine_builder.search.categorical_world import KINDS, CategoricalWorld, chain_world
from tests.engine_builder.search.fake_world import fastest_met


def ratio_of(trial: Trial) -> float:
    assert trial.latency is not None
    return trial.latency.ratio


def only(world: CategoricalWorld, kind: Precision) -> CategoricalWorld:
    """Return the same world, in which the layers have one precision alone."""
    places = [place for place, layer_precision in enumerate(world.layer_precisions) if layer_precision.precision is kind]
    return dataclasses.replace(world, layer_precisions=tuple(world.layer_precisions[place] for place in places), drop=world.drop[places])


def test_the_one_format_engine_of_every_precision_is_tried_first() -> None:
    assert [trial.order for trial in chain_world(5, 0).run()[:5]] == ["baseline", "all_low", "all_fp8", "all_int4", "frontier"]


@pytest.mark.parametrize("seed", range(6))
def test_the_engine_that_it_finds_is_close_to_the_best_of_all(seed: int) -> None:
    """Five layers of four choices; within 2% of the baseline's latency, in at most 20 of 1024 engines."""
    world = chain_world(5, seed)
    trials = world.run()
    assert ratio_of(fastest_met(trials)) <= world.best_ratio() + 0.02
    assert len(trials) <= 20


def test_on_average_several_precisions_are_worth_more_than_the_best_single_one() -> None:
    gained = []
    for seed in range(5):
        world = chain_world(6, seed)
        best = min(ratio_of(fastest_met(only(world, kind).run())) for kind in KINDS)
        gained.append(best - ratio_of(fastest_met(world.run())))
    assert min(gained) > -0.01  # the frontier holds each single precision's, but its bisection may stop at another candidate
    assert np.mean(gained) > 0.02


def test_where_every_one_format_engine_keeps_the_budget_only_time_is_left_to_search_for() -> None:
    trials = dataclasses.replace(chain_world(5, 1), budget=1.0).run()
    assert [trial.order for trial in trials] == ["baseline", "all_low", "all_fp8", "all_int4", "fastest"]
    assert ratio_of(trials[-1]) == min(map(ratio_of, trials))


def test_where_one_one_format_engine_keeps_the_budget_the_others_are_still_searched() -> None:
    world = chain_world(5, 2)
    budget = world.true_drop({layer_precision.layer: KINDS[0] for layer_precision in world.layer_precisions})
    trials = dataclasses.replace(world, budget=budget).run()
    assert trials[1].met
    assert ratio_of(fastest_met(trials)) < ratio_of(trials[1])


@pytest.mark.parametrize("broken", KINDS)
def test_a_precision_that_cannot_be_built_is_left_out(broken: Precision) -> None:
    trials = dataclasses.replace(chain_world(5, 3), broken=frozenset([broken])).run()
    assert [trial.order for trial in trials if trial.failure] == ["all_low" if broken is KINDS[0] else f"all_{broken}"]
    assert fastest_met(trials).low_layers


def test_two_searches_try_the_same() -> None:
    world = chain_world(6, 4)
    assert world.run() == world.run()
