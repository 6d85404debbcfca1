from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import CalibrationError
from engine_builder.probing.spot_check import check_alike

LOSSES = np.array([1.0, 2.0, 3.0, 6.0])  # mean 3, standard error sqrt(14 / 3 / 4) = 1.08


def test_what_differs_by_less_than_the_standard_error_is_alike() -> None:
    check_alike("the loss", LOSSES + 1.07, LOSSES)
    with pytest.raises(CalibrationError, match=r"CUDA gives other numbers than the CPU: the loss is 4\.09, expected 3 within 1\.1"):
        check_alike("the loss", LOSSES + 1.09, LOSSES)


@pytest.mark.parametrize("count", [1, 3])
def test_where_all_samples_lose_the_same_a_hundredth_is_nothing(count: int) -> None:
    same = np.full(count, 2.0)
    check_alike("the loss", same * 1.009, same)
    with pytest.raises(CalibrationError):
        check_alike("the loss", same * 1.011, same)


def test_a_loss_that_is_none_may_be_another_none() -> None:
    check_alike("the loss", np.array([3e-13, 1e-12]), np.zeros(2))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_alike_to_nothing_but_itself(wrong: float) -> None:
    with pytest.raises(CalibrationError):
        check_alike("the loss", np.array([1.0, wrong]), np.array([1.0, 2.0]))
    with pytest.raises(CalibrationError):
        check_alike("the loss", np.array([1.0, 2.0]), np.array([1.0, wrong]))
    check_alike("the loss", np.array([1.0, wrong]), np.array([1.0, wrong]))


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_rounding_in_another_order_is_always_alike(values: list[float], seed: int) -> None:
    losses = np.array(values)
    check_alike("the loss", losses * (1.0 + 1e-4 * np.random.default_rng(seed).uniform(-1.0, 1.0, len(losses))), losses)
