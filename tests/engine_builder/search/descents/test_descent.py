from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.descents.descent import Descent, Move
from engine_builder.search.loss_model import predicted_loss
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.search.time_model import TensorEdge, TimeModel

KINDS = (Precision.INT8, Precision.FP8)
LAYERS = tuple(f"l{index}" for index in range(6))
LAYER_PRECISIONS = tuple(LayerPrecision(layer, kind) for layer in LAYERS for kind in KINDS)
ONE_LAYER_MOVES = [Move((layer,), kind) for layer in LAYERS for kind in (None, *KINDS)]
PAIRS = [Move(pair, kind) for pair in itertools.combinations(LAYERS, 2) for kind in (None, *KINDS)]


class World:
    """Random models: every pair of layer precisions interacts, even two of one layer, which never meet."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.loss = 10.0 ** rng.uniform(-4.0, -2.0, len(LAYER_PRECISIONS))
        pairs = np.triu(rng.normal(size=(len(LAYER_PRECISIONS),) * 2) * 1e-3, 1)
        self.pairs = pairs + pairs.T
        edges = [TensorEdge(None, (LAYERS[0], LAYERS[3]), bool(seed % 2), 3000), TensorEdge(None, LAYERS[2:5], False, 5000, is_fused=True)]
        edges += [TensorEdge(one, (other, "elsewhere")[: 1 + seed % 2], False, 4000) for one, other in itertools.pairwise(LAYERS)]
        gains = dict(zip(LAYER_PRECISIONS, rng.uniform(-0.02, 0.1, len(LAYER_PRECISIONS)).tolist(), strict=True))
        self.times = TimeModel(1.0, gains, tuple(edges), 2e-6, dict.fromkeys(KINDS, 0.002))

    def objective(self, quantized: QuantizedLayers, rate: float) -> float:
        chosen = [quantized.get(layer_precision.layer) is layer_precision.precision for layer_precision in LAYER_PRECISIONS]
        return self.times.ratio(quantized) + rate * predicted_loss(chosen, self.loss, self.pairs)

    def loss_of(self, quantized: QuantizedLayers) -> float:
        chosen = [quantized.get(layer_precision.layer) is layer_precision.precision for layer_precision in LAYER_PRECISIONS]
        return predicted_loss(chosen, self.loss, self.pairs)

    def descent(self, moves: list[Move]) -> Descent:
        return Descent(LAYER_PRECISIONS, self.loss, self.pairs, self.times, moves)


def quantized_of(descent: Descent) -> dict[str, Precision]:
    return {layer_precision.layer: layer_precision.precision for layer_precision in descent.quantized}


@given(st.integers(0, 2**16), st.dictionaries(st.sampled_from(LAYERS), st.sampled_from(KINDS)), st.floats(0.0, 100.0))
@settings(max_examples=40)
def test_what_it_adds_up_is_what_the_models_say(seed: int, start: dict[str, Precision], rate: float) -> None:
    world = World(seed)
    descent = world.descent(ONE_LAYER_MOVES + PAIRS)
    descent.start(start)
    assert quantized_of(descent) == start
    for quantized in (start, None):
        if quantized is None:
            descent.descend(rate)
        assert descent.ratio + rate * descent.loss == pytest.approx(world.objective(quantized_of(descent), rate))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rate", [0.0, 5.0, 50.0])
def test_it_ends_where_no_move_is_worth_it(seed: int, rate: float) -> None:
    world = World(seed)
    descent = world.descent(ONE_LAYER_MOVES + PAIRS)
    descent.descend(rate)
    reached = quantized_of(descent)
    for move in ONE_LAYER_MOVES + PAIRS:
        moved = {layer: kind for layer, kind in reached.items() if layer not in move.layers}
        if move.choice is not None:
            moved |= dict.fromkeys(move.layers, move.choice)
        assert world.objective(moved, rate) >= world.objective(reached, rate) - 1e-8


def test_no_exchange_rate_is_too_high_to_leave_everything_at_the_baseline() -> None:
    world = World(0)
    world.pairs[:] = 0.0
    descent = world.descent(ONE_LAYER_MOVES)
    descent.start(dict.fromkeys(LAYERS, KINDS[0]))
    descent.descend(1e9)
    assert descent.quantized == frozenset()


def test_a_start_in_a_precision_that_is_no_choice_is_the_baseline() -> None:
    descent = World(0).descent(ONE_LAYER_MOVES)
    descent.start({LAYERS[0]: Precision.INT4, LAYERS[1]: KINDS[1], "elsewhere": KINDS[0]})
    assert descent.quantized == {LayerPrecision(LAYERS[1], KINDS[1])}


@pytest.mark.parametrize("seed", range(6))
def test_within_a_loss_it_goes_to_where_no_move_that_keeps_it_is_faster(seed: int) -> None:
    world = World(seed)
    descent = world.descent(ONE_LAYER_MOVES + PAIRS)
    start = dict.fromkeys(LAYERS[:3], KINDS[0])
    descent.start(start)
    most, before = descent.loss, descent.ratio
    descent.descend_within(most)
    reached = quantized_of(descent)
    assert descent.loss <= most * (1.0 + 1e-6)
    assert descent.ratio <= before
    for move in ONE_LAYER_MOVES + PAIRS:
        moved = {layer: kind for layer, kind in reached.items() if layer not in move.layers}
        if move.choice is not None:
            moved |= dict.fromkeys(move.layers, move.choice)
        chosen = [moved.get(one.layer) is one.precision for one in LAYER_PRECISIONS]
        if predicted_loss(chosen, world.loss, world.pairs) <= most:
            assert world.times.ratio(moved) >= world.times.ratio(reached) - 1e-8


def test_a_move_is_taken_although_its_first_layer_is_as_it_wants_already() -> None:
    layer_precisions = [LayerPrecision(layer, KINDS[0]) for layer in LAYERS[:2]]
    times = TimeModel(1.0, dict.fromkeys(layer_precisions, 0.1), (), 0.0, {})
    descent = Descent(layer_precisions, np.zeros(2), np.zeros((2, 2)), times, [Move(LAYERS[:2], KINDS[0])])
    descent.start({LAYERS[0]: KINDS[0]})
    descent.descend(0.0)
    assert descent.quantized == frozenset(layer_precisions)
