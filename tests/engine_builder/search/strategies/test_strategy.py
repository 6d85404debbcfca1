"""What every strategy of the table keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.strategies.registry import STRATEGIES
from engine_builder.search.strategies.strategy import Evidence, Strategy
from tests.engine_builder.search.fake_world import FakeWorld

WORLD = FakeWorld(flips=(0.1, 0.2))
TRIALS = [WORLD.trial(0, {}, "baseline"), WORLD.trial(1, WORLD.all_quantized, "all_low")]


def sequence(name: str) -> CandidateSequence:
    return CandidateSequence(name, ({"layer000": Precision.INT8},), (0.5,))


def evidence(*, can_predict: bool = True) -> Evidence:
    def rankings() -> Iterator[CandidateSequence]:
        yield sequence("loss")
        yield sequence("hessian")

    def predicted(trials: Sequence[Trial]) -> tuple[CandidateSequence, ...] | None:
        return (sequence("frontier"), *rankings()) if can_predict else None

    return Evidence(rankings, predicted)


class StrategyContract:
    """What the search relies on; a test class gives the ``strategy``."""

    @pytest.mark.parametrize("can_predict", [True, False])
    def test_same_evidence_gives_the_same_sequences(self, strategy: Strategy, can_predict: bool) -> None:
        first, second = (list(strategy.propose(evidence(can_predict=can_predict), TRIALS)) for _ in range(2))
        assert first == second
        assert first

    def test_sequences_are_of_layers_that_may_be_quantized(self, strategy: Strategy) -> None:
        for proposed in strategy.propose(evidence(), TRIALS):
            assert len(proposed.rungs) == len(proposed.ratios) > 0
            assert all(
                WORLD.all_quantized.get(layer) is precision for candidate in proposed.rungs for layer, precision in candidate.items()
            )

    def test_it_proposes_without_a_single_latency(self, strategy: Strategy) -> None:
        untimed = [dataclasses.replace(trial, latency=None) for trial in TRIALS]
        assert list(strategy.propose(evidence(), untimed))


class TestStrategiesOfTheTable(StrategyContract):
    @pytest.fixture(params=STRATEGIES)
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        return STRATEGIES[request.param]
