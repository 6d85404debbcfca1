"""What a tensor holds besides numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.nonfinite import Special, finite_of, specials_in, with_far_as_infinite

LOWEST = np.finfo(np.float32).min


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("value", "special"), [(np.nan, Special.NAN), (-np.inf, Special.MINUS_INFINITY), (np.inf, Special.PLUS_INFINITY), (1.0, None)]
)
def test_a_special_value_is_told_by_its_kind(dtype: type[np.floating], value: float, special: Special | None) -> None:
    values = np.ones((2, 3), dtype)
    values[1, 2] = value
    assert specials_in(values) == (frozenset() if special is None else {special})
    assert finite_of(values).size == (6 if special is None else 5)


@pytest.mark.parametrize("values", [np.zeros((0, 3), np.float32), np.ones(3, np.int64), np.ones(3, np.bool_)])
def test_nothing_and_what_is_no_float_hold_none(values: NDArray[np.generic]) -> None:
    assert specials_in(values) == frozenset()
    assert finite_of(values) is values


def test_the_end_of_the_range_counts_as_infinite() -> None:
    assert specials_in(np.array([LOWEST, 3e4])) == {Special.FAR}
    values = np.array([LOWEST, -np.inf, 3e4, np.nan, -LOWEST])
    np.testing.assert_array_equal(with_far_as_infinite(values), [-np.inf, -np.inf, 3e4, np.nan, np.inf])
