"""The part of the search that needs no losses: while the fastest engine keeps the budget, only time is searched for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.search import FASTEST, Search
from tests.engine_builder.search.fake_world import FakeWorld, fastest_met, run

LOSSLESS = FakeWorld((0.0,) * 16)


def orders(trials: Sequence[Trial]) -> list[str]:
    return [trial.order for trial in trials]


def test_a_lossless_model_ends_after_two_trials() -> None:
    search = LOSSLESS.search()
    assert orders(run(LOSSLESS, search)) == ["baseline", "all_low"]
    assert search.ended == "nothing left to try"


def test_a_lossless_model_tries_what_is_predicted_to_be_faster_still() -> None:
    slow_layer = dataclasses.replace(LOSSLESS, gains=(*(0.04,) * 15, -0.1))
    trials = run(slow_layer, slow_layer.search(guesses=[slow_layer.sequence(name="fastest")]))
    assert orders(trials) == ["baseline", "all_low", "fastest"]
    assert fastest_met(trials).low_layers == 15


def test_a_lossless_model_leaves_out_a_layer_that_is_predicted_to_cost_a_little() -> None:
    idle_layer = dataclasses.replace(LOSSLESS, gains=(*(0.04,) * 15, -0.005))
    trials = run(idle_layer, idle_layer.search(guesses=[idle_layer.sequence(name="fastest")]))
    assert orders(trials) == ["baseline", "all_low", "fastest"]
    assert fastest_met(trials).low_layers == 15


def mispredicted(world: FakeWorld, quantized: list[str], ratio: float) -> CandidateSequence:
    """Return an assignment whose latency is predicted wrongly."""
    return CandidateSequence(FASTEST, (world.quantized(quantized),), (ratio,))


def test_a_lossless_model_that_is_slow_quantized_gets_a_second_guess_where_the_first_was_wrong() -> None:
    slow_convs = dataclasses.replace(LOSSLESS, gains=(*(0.02,) * 8, *(-0.1,) * 8))
    names = list(slow_convs.layers)
    first, second = mispredicted(slow_convs, names[:12], 0.8), mispredicted(slow_convs, names[:8], 0.85)
    trials = run(slow_convs, slow_convs.search(guesses=[first, second]))
    assert orders(trials) == ["baseline", "all_low", "fastest", "fastest"]
    assert fastest_met(trials).low_layers == 8


def test_a_second_guess_that_does_not_beat_the_baseline_is_not_tried() -> None:
    slow_convs = dataclasses.replace(LOSSLESS, gains=(-0.1,) * 16)
    names = list(slow_convs.layers)
    first, second = mispredicted(slow_convs, names[:12], 0.8), mispredicted(slow_convs, names[:8], 0.98)
    assert orders(run(slow_convs, slow_convs.search(guesses=[first, second]))) == ["baseline", "all_low", "fastest"]


def test_a_lossless_model_ends_where_its_fastest_engine_came_out_as_predicted() -> None:
    slow_layer = dataclasses.replace(LOSSLESS, gains=(*(0.04,) * 15, -0.1))
    second = mispredicted(slow_layer, list(slow_layer.layers[:3]), 0.1)
    trials = run(slow_layer, slow_layer.search(guesses=[slow_layer.sequence(name=FASTEST), second]))
    assert orders(trials) == ["baseline", "all_low", "fastest"]


def refused(trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
    """Stand for sequences that need an analysis, which nobody may ask for here."""
    raise AssertionError("no losses are needed")


def unanalysed(world: FakeWorld, without_residual_adds: list[str]) -> Search:
    """Return a search that fails if it asks for what an analysis finds."""
    return Search(
        {"all_low": world.all_quantized},
        refused,
        world.fingerprint,
        max_trials=None,
        max_seconds=None,
        seconds=lambda: 0.0,
        view=lambda trials: lambda trial: trial.on_search,
        without_residual_adds=world.quantized(without_residual_adds),
    )


def test_no_losses_are_needed_where_the_fastest_engine_keeps_the_budget() -> None:
    assert orders(run(LOSSLESS, unanalysed(LOSSLESS, []))) == ["baseline", "all_low"]


def test_no_losses_are_needed_where_the_fastest_engine_is_the_one_without_residual_adds() -> None:
    """The last layer, an add, costs time and more loss than the budget has."""
    world = FakeWorld((*(0.0,) * 15, 0.01), budget=0.001, gains=(*(0.04,) * 15, -0.1))
    trials = run(world, unanalysed(world, list(world.layers[:15])))
    assert orders(trials) == ["baseline", "all_low", "products"]
    assert fastest_met(trials).order == "products"


def test_no_losses_are_needed_where_all_that_the_budget_forbids_is_not_worth_having() -> None:
    world = FakeWorld((*(0.0,) * 15, 0.01), budget=0.001, gains=(*(0.04,) * 15, 0.005))
    assert orders(run(world, unanalysed(world, list(world.layers[:15])))) == ["baseline", "all_low", "products"]


def test_losses_are_needed_where_what_is_predicted_to_be_fastest_misses_the_budget() -> None:
    """The engine without residual adds keeps the budget and is the fastest at first; one with an add that pays is faster, but over it."""
    world = FakeWorld((*(0.0,) * 14, 0.01, 0.01), budget=0.001, gains=(*(0.03,) * 14, 0.1, -0.2))
    guess = CandidateSequence(FASTEST, (world.quantized(world.layers[:15]),), (world.ratio(world.layers[:15]),))
    products = world.quantized(world.layers[:14])
    trials = run(world, world.search([world.sequence()], without_residual_adds=products, guesses=[guess]))
    assert orders(trials)[:4] == ["baseline", "all_low", "products", "fastest"]
    assert "loss" in orders(trials)
