from __future__ import annotations

from collections.abc import Sequence

import pytest

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.moves.around import MOST_STEPS, Start, StepTaken, steps_around
from engine_builder.search.search_space import QuantizedLayers
from engine_builder.search.time_model import TimeModel

INT8, FP8 = Precision.INT8, Precision.FP8
NAMES = tuple("abcd")
SINGLE = tuple((name,) for name in NAMES)
GAINS = {"a": 0.1, "b": 0.2, "c": 0.05, "d": -0.1}
LOSSES = {"a": 1.0, "b": 4.0, "c": 1.0, "d": 1.0}
TIMES = TimeModel(1.0, {LayerPrecision(name, INT8): gain for name, gain in GAINS.items()}, (), 0.0, {})


def low(names: Sequence[str]) -> dict[str, Precision]:
    return dict.fromkeys(names, INT8)


def loss(quantized: QuantizedLayers) -> float:
    return sum(LOSSES[name] for name in quantized)


def steps(*starts: Start, most_loss: float = 100.0, below: float = 1.0, sets: Sequence[Sequence[str]] = SINGLE) -> tuple[StepTaken, ...]:
    return steps_around(starts, sets, dict.fromkeys(NAMES, (INT8,)), TIMES, loss, most_loss=most_loss, below=below)


FLOAT = Start({}, 1.0, 0.0)
EVERY = Start(low(NAMES), 0.8, 14.0)  # slower than the model says, and twice as lossy


def test_what_wins_most_time_for_its_loss_comes_first() -> None:
    found = [tuple(step.quantized) for step in steps(FLOAT)]
    assert sorted(found) == [("a",), ("b",), ("c",)]  # d is slower
    assert found[0] == ("a",)


def test_a_step_is_predicted_from_what_was_measured() -> None:
    back = next(step for step in steps(EVERY, below=2.0) if "b" not in step.quantized)
    assert back.ratio == pytest.approx(0.8 * 0.95 / 0.75)  # the model says 0.75 of the start and 0.95 of the step
    assert back.loss == pytest.approx(14.0 * 3.0 / 7.0)


def test_giving_back_what_costs_time_and_loss_comes_before_all_that_adds_loss() -> None:
    found = steps(EVERY, below=0.8)
    assert tuple(found[0].quantized) == ("a", "b", "c")


def test_nothing_too_lossy_or_too_slow_is_proposed() -> None:
    assert [tuple(step.quantized) for step in steps(FLOAT, most_loss=1.5, below=0.94)] == [("a",)]


def test_steps_start_from_several_engines_and_each_engine_is_proposed_once() -> None:
    found = steps(FLOAT, Start(low("a"), 0.9, 1.0), sets=[("a",), ("b",), ("a", "b")])
    names = [tuple(sorted(step.quantized)) for step in found]
    assert len(set(names)) == len(names)
    assert ("a", "b") in names
    assert ("a",) not in names  # measured already


def test_a_run_changes_as_one() -> None:
    assert [tuple(step.quantized) for step in steps(FLOAT, sets=[("a", "b", "c")])] == [("a", "b", "c")]


def test_a_layer_may_take_another_precision() -> None:
    gains = {LayerPrecision("a", INT8): 0.1, LayerPrecision("a", FP8): 0.2}
    times = TimeModel(1.0, gains, (), 0.0, {})
    found = steps_around([Start({"a": INT8}, 0.9, 1.0)], [("a",)], {"a": (INT8, FP8)}, times, lambda one: 1.0, most_loss=9.0, below=1.0)
    assert [dict(step.quantized) for step in found] == [{"a": FP8}]


def test_no_more_than_a_few_are_proposed() -> None:
    names = [f"l{index:02}" for index in range(2 * MOST_STEPS)]
    times = TimeModel(1.0, {LayerPrecision(name, INT8): 0.01 for name in names}, (), 0.0, {})
    found = steps_around(
        [FLOAT], [(name,) for name in names], dict.fromkeys(names, (INT8,)), times, lambda one: float(len(one)), most_loss=9.0, below=1.0
    )
    assert len(found) == MOST_STEPS
