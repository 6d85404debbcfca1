"""The search for the most accurate engine that is fast enough."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from engine_builder.records.trial import FOLDED, Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.measured_front import fast_enough
from engine_builder.search.search import FASTEST, FRONTIER
from tests.engine_builder.search.fake_world import FakeWorld, rising, run

COUNT = 32


def found(world: FakeWorld, needed: float) -> tuple[tuple[Trial, ...], tuple[Trial, ...]]:
    """Return all trials and those that are fast enough, the most accurate first."""
    sequence = world.sequence(name=FRONTIER)
    guess = CandidateSequence(FASTEST, sequence.rungs[-1:], sequence.ratios[-1:])
    trials = run(world, world.search([sequence], largest_ratio=lambda baseline_ms: needed, guesses=[guess]))
    return trials, fast_enough(trials, lambda trial: trial.on_search, needed)


@settings(deadline=None)
@given(st.floats(0.52, 0.97))
def test_the_most_accurate_engine_that_is_fast_enough_is_found_in_few_trials(needed: float) -> None:
    world = FakeWorld(rising(COUNT, 0.01))
    trials, (best, *_) = found(world, needed)
    gain = 0.5 / COUNT
    fewest = math.ceil((1.0 - needed) / gain - 1e-9)  # layers, the cheapest in accuracy first
    assert best.low_layers == fewest
    assert len(trials) <= 2 + math.ceil(math.log2(COUNT)) + 3


def test_a_budget_has_no_say_in_it() -> None:
    strict, lenient = (FakeWorld(rising(COUNT, 0.01), budget=budget) for budget in (0.0, 1.0))
    (strict_trials, _), (lenient_trials, _) = found(strict, 0.7), found(lenient, 0.7)
    assert [trial.fingerprint for trial in strict_trials] == [trial.fingerprint for trial in lenient_trials]


def test_a_baseline_that_is_fast_enough_ends_the_search() -> None:
    trials, good = found(FakeWorld(rising(COUNT, 0.01)), 1.0)
    assert [trial.low_layers for trial in trials] == [0]
    assert good == ()


def test_where_the_engine_with_every_layer_is_too_slow_the_fastest_candidate_is_tried() -> None:
    gains = (*(0.6 / 31,) * 31, -0.3)  # the last layer costs time
    world = FakeWorld(rising(COUNT, 0.01), gains=gains)
    trials, (best, *_) = found(world, 0.5)
    assert [trial.low_layers for trial in trials][:3] == [0, 32, 31]
    assert best.low_layers == 26  # of those that are fast enough the most accurate one: 26 of 31 gain 0.5


def test_where_nothing_is_fast_enough_little_is_tried() -> None:
    trials, good = found(FakeWorld(rising(COUNT, 0.01)), 0.2)
    assert good == ()
    assert len(trials) <= 3


def test_a_candidate_that_cannot_be_built_does_not_count_as_too_slow() -> None:
    fewest = math.ceil(0.3 / (0.5 / COUNT))
    world = FakeWorld(rising(COUNT, 0.01), is_broken=lambda quantized: len(quantized) == fewest)
    _, (best, *_) = found(world, 0.7)
    assert best.low_layers == fewest + 1


def test_without_its_residual_adds_an_engine_that_is_fast_enough_may_be_more_accurate() -> None:
    world = FakeWorld(rising(COUNT, 0.01))
    without = world.quantized(world.layers[:-2])
    trials = run(world, world.search([], without, largest_ratio=lambda baseline_ms: 0.6))
    assert [trial.low_layers for trial in trials] == [0, 32, 30]


def test_a_folded_float_model_that_is_fast_enough_ends_the_search() -> None:
    world = FakeWorld(rising(COUNT, 0.01))
    for folded, orders in ((0.85, ["baseline", "folded"]), (0.95, ["baseline", "folded", "all_low"])):
        search = world.search([], largest_ratio=lambda baseline_ms: 0.9, tries_folded=True)
        while (proposal := search.next()) is not None:
            trial = world.trial(len(search.trials), proposal.quantized, proposal.order)
            if proposal.order == FOLDED:
                assert trial.latency is not None
                trial = replace(trial, latency=replace(trial.latency, ratio=folded))
            search.tell(trial)
        assert [trial.order for trial in search.trials] == orders
        assert next(iter(fast_enough(search.trials, lambda trial: trial.on_search, 0.9))).order == orders[-1]
