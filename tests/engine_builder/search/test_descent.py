from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision
from engine_builder.search.descent import Descent, Move
from engine_builder.search.loss_model import predicted_loss
from engine_builder.search.search_space import Low
from engine_builder.search.time_model import Flow, TimeModel

KINDS = (Precision.INT8, Precision.FP8)
LAYERS = tuple(f"l{index}" for index in range(6))
DECISIONS = tuple(Decision(layer, kind) for layer in LAYERS for kind in KINDS)
SINGLES = [Move((layer,), kind) for layer in LAYERS for kind in (None, *KINDS)]
PAIRS = [Move(pair, kind) for pair in itertools.combinations(LAYERS, 2) for kind in (None, *KINDS)]


class World:
    """Random models: every pair of decisions interacts, even two of one layer, which never meet."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.loss = 10.0 ** rng.uniform(-4.0, -2.0, len(DECISIONS))
        pairs = np.triu(rng.normal(size=(len(DECISIONS),) * 2) * 1e-3, 1)
        self.pairs = pairs + pairs.T
        flows = [Flow(None, (LAYERS[0], LAYERS[3]), bool(seed % 2), 3000), Flow(None, LAYERS[2:5], False, 5000, is_fused=True)]
        flows += [Flow(one, (other, "elsewhere")[: 1 + seed % 2], False, 4000) for one, other in itertools.pairwise(LAYERS)]
        gains = dict(zip(DECISIONS, rng.uniform(-0.02, 0.1, len(DECISIONS)).tolist(), strict=True))
        self.times = TimeModel(1.0, gains, tuple(flows), 2e-6, dict.fromkeys(KINDS, 0.002))

    def objective(self, low: Low, rate: float) -> float:
        chosen = [low.get(decision.layer) is decision.precision for decision in DECISIONS]
        return self.times.ratio(low) + rate * predicted_loss(chosen, self.loss, self.pairs)

    def descent(self, moves: list[Move]) -> Descent:
        return Descent(DECISIONS, self.loss, self.pairs, self.times, moves)


def low_of(descent: Descent) -> dict[str, Precision]:
    return {decision.layer: decision.precision for decision in descent.low}


@given(st.integers(0, 2**16), st.dictionaries(st.sampled_from(LAYERS), st.sampled_from(KINDS)), st.floats(0.0, 100.0))
@settings(max_examples=40)
def test_what_it_adds_up_is_what_the_models_say(seed: int, start: dict[str, Precision], rate: float) -> None:
    world = World(seed)
    descent = world.descent(SINGLES + PAIRS)
    descent.start(start)
    assert low_of(descent) == start
    for low in (start, None):
        if low is None:
            descent.descend(rate)
        assert descent.ratio + rate * descent.loss == pytest.approx(world.objective(low_of(descent), rate))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rate", [0.0, 5.0, 50.0])
def test_it_ends_where_no_move_is_worth_it(seed: int, rate: float) -> None:
    world = World(seed)
    descent = world.descent(SINGLES + PAIRS)
    descent.descend(rate)
    reached = low_of(descent)
    for move in SINGLES + PAIRS:
        moved = {layer: kind for layer, kind in reached.items() if layer not in move.layers}
        if move.choice is not None:
            moved |= dict.fromkeys(move.layers, move.choice)
        assert world.objective(moved, rate) >= world.objective(reached, rate) - 1e-8


def test_no_exchange_rate_is_too_high_to_leave_everything_at_the_baseline() -> None:
    world = World(0)
    world.pairs[:] = 0.0
    descent = world.descent(SINGLES)
    descent.start(dict.fromkeys(LAYERS, KINDS[0]))
    descent.descend(1e9)
    assert descent.low == frozenset()


def test_a_start_in_a_precision_that_is_no_choice_is_the_baseline() -> None:
    descent = World(0).descent(SINGLES)
    descent.start({LAYERS[0]: Precision.INT4, LAYERS[1]: KINDS[1], "elsewhere": KINDS[0]})
    assert descent.low == {Decision(LAYERS[1], KINDS[1])}
