"""What every grid keeps; the figures of each are tested with the formats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from calibration.number_formats.number_format import Grid
from calibration.number_formats.precision import Precision

Floats = NDArray[np.float32]
VALUES = arrays.arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32, allow_subnormal=False))


class GridContract:
    """What rounding to a format is; a test class gives the ``grid`` by a mark."""

    @given(x=VALUES)
    def test_rounding_keeps_shape_type_order_and_zero(self, x: Floats, grid: Grid) -> None:
        for rounded in (grid.round_weight(x), grid.round_activation(x, -8.0, 8.0, symmetric=True)):
            assert (rounded.shape, rounded.dtype) == (x.shape, np.dtype(np.float32))
            assert (np.diff(rounded.ravel()[np.argsort(x, axis=None, kind="stable")]) >= 0).all()
            assert not rounded[x == 0].any()

    @given(x=VALUES)
    def test_rounding_does_not_know_of_signs(self, x: Floats, grid: Grid) -> None:
        np.testing.assert_array_equal(grid.round_weight(-x), -grid.round_weight(x))

    @given(x=VALUES)
    def test_what_is_rounded_stays(self, x: Floats, grid: Grid) -> None:
        once = grid.round_activation(x, -8.0, 8.0, symmetric=True)
        np.testing.assert_allclose(grid.round_activation(once, -8.0, 8.0, symmetric=True), once, rtol=1e-6)  # a product in float32

    def test_largest_level_is_one_that_the_storage_has(self, grid: Grid) -> None:
        top = np.asarray(grid.top)
        assert float(top.astype(grid.storage).astype(np.float64)) == float(top)

    def test_only_a_scaled_grid_has_a_scale_and_a_zero_point(self, grid: Grid) -> None:
        if grid.is_scaled:
            scale, zero_point = grid.activation(-8.0, 8.0, symmetric=True)
            assert float(scale) * grid.top == pytest.approx(8.0)
            assert (zero_point.dtype, zero_point.shape, zero_point.item()) == (grid.storage, (), 0)
        else:
            with pytest.raises(TypeError):
                grid.activation(-8.0, 8.0, symmetric=True)

    def test_integers_are_scaled(self, grid: Grid) -> None:
        assert grid.is_scaled >= grid.is_integer


@pytest.mark.parametrize("grid", [precision.grid for precision in Precision], ids=list(Precision))
class TestGridsOfTheFormats(GridContract):
    """Every row of the table of formats."""
