from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.number_formats.precision import Precision
from engine_builder.search.descents.descent import SMALLEST_GAIN, Move
from tests.engine_builder.search.descents.test_descent import KINDS, LAYERS, ONE_LAYER_MOVES, PAIRS, World, quantized_of

RUNS = [Move(LAYERS[first : first + 3], kind) for first in range(4) for kind in (None, *KINDS)]
MOVES = [*ONE_LAYER_MOVES, *PAIRS, *RUNS]
Chosen = dict[str, Precision]


def one_by_one(world: World, start: Chosen, rate: float, most_loss: float) -> Chosen:
    """Return where taking every move that pays, in turns, leads: the slow form, each time from the models themselves."""
    here, idle = dict(start), 0
    while idle < len(MOVES):
        for move in MOVES:
            if idle >= len(MOVES):
                break
            idle += 1
            there = {layer: kind for layer, kind in here.items() if layer not in move.layers}
            if move.choice is not None:
                there |= dict.fromkeys(move.layers, move.choice)
            if (
                there != here
                and world.loss_of(there) <= most_loss
                and world.objective(there, rate) < world.objective(here, rate) - SMALLEST_GAIN
            ):
                here, idle = there, 0
    return here


chosen = st.dictionaries(st.sampled_from(LAYERS), st.sampled_from(KINDS))


@given(st.integers(0, 2**16), st.lists(st.tuples(chosen, st.floats(0.0, 100.0)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_the_screened_descent_goes_where_trying_every_move_goes(seed: int, descents: list[tuple[Chosen, float]]) -> None:
    world = World(seed)
    descent = world.descent(MOVES)
    for start, rate in descents:
        descent.start(start)
        descent.descend(rate)
        assert quantized_of(descent) == one_by_one(world, start, rate, float("inf"))


@given(st.integers(0, 2**16), chosen, st.floats(0.0, 0.05))
@settings(max_examples=40, deadline=None)
def test_within_a_loss_too(seed: int, start: Chosen, most: float) -> None:
    world = World(seed)
    descent = world.descent(MOVES)
    descent.start(start)
    most = max(most, descent.loss)
    descent.descend_within(most)
    assert quantized_of(descent) == one_by_one(world, start, 0.0, most)
