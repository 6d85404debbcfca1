from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from calibration.data.dataset import CalibrationSet
from engine_builder.closed_loop.single_steps import StepOrder, single_step_warning, step_order
from tests.driver import Array

STATES = {"hn": "h"}


def summing(feeds: Mapping[str, Array]) -> tuple[Array, ...]:
    return feeds["x"], feeds["h"] + feeds["x"]


def growing(feeds: Mapping[str, Array]) -> tuple[Array, ...]:
    return feeds["x"], np.concatenate([feeds["h"], feeds["x"]], axis=1)


def samples(states: Array) -> CalibrationSet:
    return CalibrationSet({"x": np.ones((len(states), 1)), "h": states[:, None]}, None)


def test_steps_in_their_order_are_told_from_mixed_ones() -> None:
    ordered = np.arange(8.0)

    assert step_order(summing, samples(ordered), STATES, ["y", "hn"]) is StepOrder.IN_ORDER
    assert step_order(summing, samples(ordered[::-1]), STATES, ["y", "hn"]) is StepOrder.UNKNOWN
    assert step_order(summing, samples(np.zeros(8)), STATES, ["y", "hn"]) is StepOrder.UNKNOWN


def test_a_state_that_grows_is_told() -> None:
    assert step_order(growing, samples(np.arange(8.0)), STATES, ["y", "hn"]) is StepOrder.GROWING


@pytest.mark.parametrize(
    ("order", "words", "other"),
    [
        (StepOrder.UNKNOWN, "give arrays of (sequences, steps, *one step*), and leave out 'h'", "in their order"),
        (StepOrder.IN_ORDER, "array.reshape(sequences, steps, *array.shape[1:])", "grows"),
        (StepOrder.GROWING, "of tokens (sequences, steps), and leave out 'h', as well as masks and positions", "in their order"),
    ],
)
def test_the_warning_says_what_was_judged_and_what_to_give(order: StepOrder, words: str, other: str) -> None:
    warning = single_step_warning(STATES, order)

    assert "only single steps were judged" in warning
    assert "errors may add up" in warning
    assert words in warning
    assert other not in warning
