from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from calibration.data.dataset import CalibrationSet
from calibration.data.sample_axes import OutputAxis, SampleAxes
from engine_builder.closed_loop.run_sequences import run_closed_loop, states_at
from engine_builder.errors import EngineError
from engine_builder.records.closed_loop import ClosedLoop
from tests.driver import Array

LENGTHS = (3, 5, 1, 2)
X = np.arange(1.0, 12.0, dtype=np.float32)[:, None]
LOOP = ClosedLoop({"sum": 1}, LENGTHS, is_judged_last=False)
STARTS = np.array([[100.0], [200.0], [300.0], [400.0]], dtype=np.float32)
INPUTS = {"x": X, "sum": np.broadcast_to(np.float32(7.0), (11, 1))}
SAMPLES = CalibrationSet(INPUTS, None, starts={"sum": STARTS})
SUMS = [101.0, 103.0, 106.0, 204.0, 209.0, 215.0, 222.0, 230.0, 309.0, 410.0, 421.0]


class Summing:
    """Adds up what it is given; its state counts samples on the axis ``axis``."""

    def __init__(self, axis: int = 0) -> None:
        self.axis = axis
        self.batches: list[int] = []

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        self.batches.append(len(feeds["x"]))
        total = feeds["sum"] + np.moveaxis(feeds["x"], 0, self.axis)
        return feeds["x"], total

    def close(self) -> None:
        """Nothing is held."""


class Growing(Summing):
    """Gives a longer state than it takes."""

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        x, total = super().run(feeds)
        return x, np.concatenate([total, total], axis=1)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7])
def test_each_step_takes_what_the_step_before_gave(batch: int) -> None:
    runner = Summing()
    x, sums = run_closed_loop(runner, SAMPLES, LOOP, compared=[0, 1], axes=SampleAxes(), batch=batch)

    assert np.array_equal(x, X)
    assert sums[:, 0].tolist() == SUMS
    assert set(runner.batches) == {batch}


def test_groups_run_beside_each_other_give_the_same() -> None:
    (sums,) = run_closed_loop(Summing(), SAMPLES, LOOP, compared=[1], axes=SampleAxes(), batch=1, workers=3)

    assert sums[:, 0].tolist() == SUMS


def test_a_state_may_count_samples_on_another_axis() -> None:
    axes = SampleAxes({"sum": 1}, (OutputAxis(), OutputAxis(1)))
    samples = CalibrationSet(INPUTS, None, {"sum": 1}, starts={"sum": STARTS})
    (sums,) = run_closed_loop(Summing(axis=1), samples, LOOP, compared=[1], axes=axes, batch=2)

    assert sums[:, 0].tolist() == SUMS
    assert states_at(Summing(axis=1), samples, LOOP, np.array([1]), batch=2)["sum"].tolist() == [[101.0]]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_state_that_comes_to_each_step_is_told(batch: int) -> None:
    held = states_at(Summing(), SAMPLES, LOOP, np.arange(11), batch=batch)["sum"][:, 0]

    assert held.tolist() == [100.0, 101.0, 103.0, 200.0, 204.0, 209.0, 215.0, 222.0, 300.0, 400.0, 410.0]


def test_the_states_of_some_steps_come_in_the_order_asked_for() -> None:
    held = states_at(Summing(), SAMPLES, LOOP, np.array([7, 0, 9]), batch=2)["sum"][:, 0]

    assert held.tolist() == [222.0, 100.0, 400.0]


def test_a_state_that_grows_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"state 'sum': shape \(1, 2\) found after step 1, \(1, 1\) expected"):
        states_at(Growing(), SAMPLES, LOOP, np.array([0]), batch=1)


def test_an_output_without_samples_in_front_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"output 0: shape \(1, 2\) found for 2 sequences"):
        run_closed_loop(Summing(), SAMPLES, LOOP, compared=[0], axes=SampleAxes({}, (OutputAxis(1), OutputAxis())), batch=2)
