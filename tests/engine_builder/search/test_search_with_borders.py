"""Searches in a world where a border between float and quantized layers costs reorders that elements alone do not tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.moves.around import Start, steps_around
from engine_builder.search.moves.blocks import layer_sets
from engine_builder.search.moves.steps_from import StepsFrom
from engine_builder.search.predicted_front import Point, descent_over, frontier, smoothed
from engine_builder.search.search import CONTRADICTED, FRONTIER, MOVES, REFINED, Search
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.search.strategies.predicted_sequences import PredictedSequences
from engine_builder.search.strategies.strategy import Evidence
from engine_builder.search.time_model import Timed, TimeModel, fit
from engine_builder.search.times.learned_times import fit_learned
from tests.engine_builder.search.fake_world import FakeWorld, fastest_met, run
from tests.engine_builder.search.times.layered_world import BASELINE_MS, LayeredWorld
from tests.long_cases import mostly_long


@dataclass(frozen=True)
class BorderedWorld(FakeWorld):
    """Engines take the times of ``times``; layers are named as there."""

    times: LayeredWorld = field(default_factory=LayeredWorld)

    @property
    def layers(self) -> tuple[str, ...]:
        return self.times.names

    def ratio(self, quantized: QuantizedLayers) -> float:  # type: ignore[override]  # the world of times wants the precisions
        return self.times.ratio(dict.fromkeys(quantized, Precision.INT8))


def scattered_world(seed: int = 0, conversions: float = 2.5) -> BorderedWorld:
    """Return a world in which the cheapest layers lie scattered, and half of the loss is allowed."""
    rng = np.random.default_rng(seed)
    flips = tuple(float(one) for one in rng.permutation(np.linspace(1e-4, 2e-4, 20)))
    return BorderedWorld(flips, budget=0.5 * sum(flips), times=LayeredWorld(seed=seed, conversions=conversions, share=0.6))


class Predictions:
    """What the stage ``predict`` does, on the world's own costs; ``learns`` says whether by kernels or by elements."""

    def __init__(self, world: BorderedWorld, *, learns: bool = True) -> None:
        self.world, self.learns, self.asked = world, learns, 0
        self.choices = tuple(LayerPrecision(name, Precision.INT8) for name in world.layers)
        self.loss = np.array(world.flips)
        self.pairs = np.zeros((len(world.layers),) * 2)

    def model(self, trials: Sequence[Trial]) -> TimeModel:
        timed = [Timed(trial.precisions, trial.latency.ratio) for trial in trials if trial.latency is not None]
        times = self.world.times
        return fit_learned(times.costs, timed).model() if self.learns else fit(BASELINE_MS, times.gain_ms, times.edges, timed)

    def predicted(self, trials: Sequence[Trial]) -> tuple[CandidateSequence, ...]:
        self.asked += 1
        times = self.model(trials)
        points = frontier(self.choices, self.loss, self.pairs, times, is_filled=self.learns)
        order = [self.choices[index] for index in np.argsort(self.loss)]
        rungs: list[QuantizedLayers] = [{one.layer: one.precision for one in order[:count]} for count in range(1, len(order))]
        if self.learns:
            rungs = _candidates(smoothed(rungs, descent_over(self.choices, self.loss, self.pairs, times)))
        found = [_sequence(FRONTIER if self.asked == 1 else REFINED, _candidates(points), times)]
        if self.asked == 1 or self.learns:
            found.append(_sequence("loss", rungs, times))
        return tuple(found)

    def around(self, trials: Sequence[Trial], wanted: StepsFrom) -> CandidateSequence | None:
        times = self.model(trials)
        starts = [
            Start(one.precisions, one.latency.ratio, one.loss or 0.0) for one in trials if one.fingerprint in wanted.starts and one.latency
        ]
        found = steps_around(
            starts,
            layer_sets(self.world.layers, times.edges),
            dict.fromkeys(self.world.layers, (Precision.INT8,)),
            times,
            self.world.flip_rate,
            most_loss=wanted.most_loss,
            below=wanted.below,
        )
        return _sequence(MOVES, [step.quantized for step in found], times)

    def search(self, **limits: int) -> Search:
        evidence = Evidence(lambda: iter(()), self.predicted)

        def sequences(trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
            return PredictedSequences().propose(evidence, trials)

        return Search(
            {"all_low": self.world.all_quantized},
            sequences,
            self.world.fingerprint,
            max_trials=limits.get("max_trials"),
            max_seconds=None,
            seconds=lambda: 0.0,
            view=lambda trials: lambda trial: trial.on_search,
            around=self.around if self.learns else None,
        )


def _candidates(points: Sequence[Point]) -> list[QuantizedLayers]:
    return [{one.layer: one.precision for one in sorted(point.quantized)} for point in points]


def _sequence(name: str, rungs: Sequence[QuantizedLayers], times: TimeModel) -> CandidateSequence:
    errors = tuple(times.error(rung) for rung in rungs) if times.certainty else ()
    return CandidateSequence(name, tuple(rungs), tuple(times.ratio(rung) for rung in rungs), errors)


def borders_in(world: BorderedWorld, quantized: QuantizedLayers) -> int:
    """Return how often the chain goes from float to quantized or back."""
    low = [name in quantized for name in world.layers]
    return sum(one != other for one, other in zip([False, *low], [*low, False], strict=True))


def test_scattered_engines_do_not_pay_in_this_world() -> None:
    world = scattered_world()
    cheapest = [name for _, name in sorted(zip(world.flips, world.layers, strict=True))][:10]
    assert world.ratio(world.quantized(cheapest)) > 1.0
    assert world.ratio(world.quantized(world.layers[:10])) < 1.0


def fastest_run(world: BorderedWorld) -> float:
    """Return the ratio of the fastest engine of one run that meets the budget."""
    names = world.layers
    runs = [names[start:stop] for start in range(len(names)) for stop in range(start + 1, len(names) + 1)]
    return min(world.ratio(world.quantized(one)) for one in runs if world.true_drop(one) <= world.budget)


@pytest.mark.parametrize("seed", mostly_long(range(4)))
def test_a_run_is_found_within_a_dozen_trials_where_scattered_layers_do_not_pay(seed: int) -> None:
    world = scattered_world(seed)
    trials = run(world, Predictions(world).search(max_trials=12))
    best = fastest_met(trials)
    assert borders_in(world, best.precisions) <= 6  # of at most 20
    assert world.ratio(best.precisions) <= fastest_run(world) + 0.02
    assert max(borders_in(world, trial.precisions) for trial in trials) <= 10


@pytest.mark.parametrize("seed", mostly_long(range(4)))
def test_with_as_many_trials_elements_alone_find_no_faster_engine(seed: int) -> None:
    world = scattered_world(seed)
    by_kernels, by_elements = (fastest_met(run(world, Predictions(world, learns=one).search(max_trials=12))) for one in (True, False))
    assert world.ratio(by_kernels.precisions) <= world.ratio(by_elements.precisions)


def test_in_most_worlds_elements_alone_find_a_much_slower_engine() -> None:
    worlds = [scattered_world(seed) for seed in range(4)]
    slower = [
        world.ratio(fastest_met(run(world, Predictions(world, learns=False).search(max_trials=12))).precisions) - fastest_run(world)
        for world in worlds
    ]
    assert np.mean(slower) > 0.1


def test_predictions_are_asked_for_again_before_each_sequence_and_hold_in_the_end() -> None:
    world = scattered_world()
    predictions = Predictions(world)
    trials = run(world, predictions.search())
    assert predictions.asked > 1
    model = predictions.model(trials)
    assert np.mean([abs(model.ratio(trial.precisions) - world.ratio(trial.precisions)) for trial in trials]) < 0.03


def test_the_same_world_gives_the_same_trials() -> None:
    world = scattered_world(1)
    first, second = (run(world, Predictions(world).search(max_trials=14)) for _ in range(2))
    assert first == second


HALFWAY = FakeWorld((0.0001,) * 64, budget=0.0064)  # everything fits but all 64 together


def test_a_sequence_that_two_trials_contradict_is_dropped() -> None:
    world = dataclasses.replace(HALFWAY, budget=0.0032)
    slow = dataclasses.replace(world, gains=(-0.002,) * 64)
    told = slow.sequence(name="wrong")
    wrong = dataclasses.replace(told, ratios=tuple(0.8 for _ in told.ratios), errors=tuple(0.02 for _ in told.ratios))
    sure = dataclasses.replace(wrong, errors=())
    assert [trial.order for trial in run(slow, slow.search([wrong]))].count("wrong") == CONTRADICTED
    assert [trial.order for trial in run(slow, slow.search([sure]))].count("wrong") > CONTRADICTED


def test_a_sequence_within_its_errors_is_followed_to_its_end() -> None:
    world = dataclasses.replace(HALFWAY, budget=0.0032)
    told = world.sequence()
    close = dataclasses.replace(told, ratios=tuple(ratio - 0.03 for ratio in told.ratios), errors=tuple(0.02 for _ in told.ratios))
    assert fastest_met(run(world, world.search([close]))).low_layers == 32


def test_steps_from_measured_engines_are_taken_after_the_first_sequence_and_end_once_they_do_not_pay() -> None:
    world = scattered_world(3)
    trials = run(world, Predictions(world).search())
    orders = [trial.order for trial in trials]
    assert set(orders[: orders.index(MOVES)]) == {"baseline", "all_low", FRONTIER}
    assert len(trials) < 20


def test_without_a_word_about_steps_none_are_taken() -> None:
    world = scattered_world(3)
    assert MOVES not in [trial.order for trial in run(world, Predictions(world, learns=False).search())]


def test_where_all_but_a_few_layers_fit_the_engine_without_them_is_found_soon() -> None:
    """All low misses by one layer: giving single layers back finds it."""
    flips = tuple(0.003 if index == 9 else 0.00001 for index in range(20))
    world = BorderedWorld(flips, budget=0.001, times=LayeredWorld(conversions=1.5, share=0.6))
    trials = run(world, Predictions(world).search(max_trials=6))
    best = fastest_met(trials)
    assert best.latency is not None
    assert "c09" not in best.precisions
    assert best.latency.ratio < 0.7
