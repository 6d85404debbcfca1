from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.predictions.engines import Shape, mixed_engines

LAYERS = tuple(f"l{index:02}" for index in range(30))


def test_there_are_engines_of_every_shape() -> None:
    found = mixed_engines(LAYERS, 6, np.random.default_rng(0))
    assert {one.shape for one in found} == set(Shape)
    assert len(found) > 18


@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 2**16))
def test_every_engine_is_mixed_and_is_there_once(count: int, engines: int, seed: int) -> None:
    layers = tuple(f"l{index:02}" for index in range(count))
    found = mixed_engines(layers, engines, np.random.default_rng(seed))
    assert all(0 < len(one.quantized) < count for one in found)
    assert len({one.quantized for one in found}) == len(found)


def test_a_run_has_no_gap() -> None:
    for one in mixed_engines(LAYERS, 8, np.random.default_rng(1)):
        places = [LAYERS.index(layer) for layer in one.quantized]
        if one.shape is Shape.RUN:
            assert places == list(range(places[0], places[-1] + 1))
