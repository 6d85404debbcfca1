from __future__ import annotations

import numpy as np
import pytest

from calibration.data.dataset import CalibrationSet
from calibration.errors import InvalidCalibrationSetError
from calibration.sequences.caches import Caches
from engine_builder.closed_loop.chosen_steps import MOST_STRETCHES, chosen_steps
from engine_builder.records.closed_loop import ClosedLoop

LENGTHS = (5, 2, 6)
LOOP = ClosedLoop({"past": 1}, LENGTHS, is_judged_last=False, caches=Caches({"past": 1}))


def steps(*, cached: int = 3, begun: int = 0, of: float = 0.0) -> CalibrationSet:
    """Return the steps of three sequences, numbered; sequence s begins with ``begun`` steps of the value ``of`` + s in the cache."""
    count = sum(LENGTHS)
    held = np.broadcast_to(np.zeros((1, begun + cached, 2)), (count, begun + cached, 2))
    start = np.full((3, begun, 2), of) + (np.arange(3)[:, None, None] if of else 0)
    return CalibrationSet({"x": np.arange(float(count))[:, None], "past": held}, None, starts={"past": start})


def test_each_stretch_fills_the_cache_and_ends_with_a_step_that_is_used() -> None:
    found = chosen_steps(steps(), LOOP, None, seed=0)
    assert found.cached == 3
    assert found.loop.lengths == (4,) * 5  # two in the first sequence, three in the last, none in the short one
    stretches = found.steps.inputs["x"].reshape(5, 4)
    assert (np.diff(stretches, axis=1) == 1.0).all()
    assert sorted(stretches[:, 0].tolist()) == [0.0, 1.0, 7.0, 8.0, 9.0]
    assert found.steps.inputs["x"][found.wanted, 0].tolist() == stretches[:, -1].tolist()
    assert found.steps.starts["past"].shape == (5, 0, 2)
    assert found.note(13).startswith("ranges and probes use 5 of the 13 steps")
    assert found.note(13).endswith("3 steps in its cache")


def test_stretches_begin_where_sequences_do_if_these_begin_with_something() -> None:
    found = chosen_steps(steps(begun=2, of=1.0), LOOP, None, seed=0)
    assert found.cached == 5
    stretches = found.steps.inputs["x"].reshape(2, 4)
    assert sorted(stretches[:, 0].tolist()) == [0.0, 7.0]
    assert found.steps.starts["past"][:, 0, 0].tolist() == [1.0 if first == 0.0 else 3.0 for first in stretches[:, 0]]


def test_the_user_says_how_many_and_there_is_a_limit() -> None:
    assert len(chosen_steps(steps(), LOOP, 2, seed=0).wanted) == 2
    long = ClosedLoop({"past": 1}, (2 * MOST_STRETCHES,), is_judged_last=False, caches=Caches({"past": 1}))
    held = np.broadcast_to(np.zeros((1, 1, 2)), (2 * MOST_STRETCHES, 1, 2))
    many = CalibrationSet({"x": np.zeros((2 * MOST_STRETCHES, 1)), "past": held}, None, starts={"past": np.zeros((1, 0, 2))})
    assert len(chosen_steps(many, long, None, seed=0).wanted) == MOST_STRETCHES


def test_sequences_that_do_not_fill_the_cache_are_refused() -> None:
    with pytest.raises(InvalidCalibrationSetError, match="sequences of at most 6 steps found, one of at least 8 expected"):
        chosen_steps(steps(cached=7), LOOP, None, seed=0)
