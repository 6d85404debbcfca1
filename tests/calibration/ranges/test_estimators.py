"""Each method's range against what it promises, on values whose best range is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.number_formats.grids import fake_quantize_activation
from calibration.ranges.estimators import clipped_range
from calibration.ranges.histograms import Histogram
from calibration.ranges.range_table import RangeMethod

CLIPPING = (RangeMethod.PERCENTILE, RangeMethod.ENTROPY, RangeMethod.MSE)
both_grids = pytest.mark.parametrize("symmetric", [True, False])


def histogram_of(values: NDArray[np.float32]) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values, 4):
        histogram.add(part)
    return histogram


def normal(count: int = 200_000, *outliers: float) -> NDArray[np.float32]:
    values = np.random.default_rng(7).normal(size=count).astype(np.float32)
    values[: len(outliers)] = outliers
    return values


def error(values: NDArray[np.float32], span: tuple[float, float], symmetric: bool) -> float:
    return float(np.mean((values - fake_quantize_activation(values, *span, bits=8, symmetric=symmetric)).astype(np.float64) ** 2))


@both_grids
@pytest.mark.parametrize("values", [normal(20_000), np.abs(normal(20_000)), normal(20_000, 60.0), np.maximum(normal(20_000, 9.0), 0)])
def test_mse_is_within_five_percent_of_the_best_range_by_brute_force(values: NDArray[np.float32], symmetric: bool) -> None:
    found = clipped_range(histogram_of(values), RangeMethod.MSE, symmetric=symmetric)
    low, high = min(float(values.min()), 0.0), float(values.max())
    tried = [(low * a, high * b) for a in np.linspace(0.02, 1, 30) for b in np.linspace(0.02, 1, 60)]
    assert error(values, found, symmetric) <= 1.05 * min(error(values, span, symmetric) for span in tried)


@both_grids
@pytest.mark.parametrize("method", CLIPPING)
def test_a_lone_outlier_is_clipped(method: RangeMethod, symmetric: bool) -> None:
    values = normal(200_000, 40.0)
    low, high = clipped_range(histogram_of(values), method, symmetric=symmetric)
    assert values.min() <= low < -2.0
    assert 2.0 < high < 36.0


@both_grids
@pytest.mark.parametrize("method", CLIPPING)
def test_even_values_keep_nearly_their_whole_span(method: RangeMethod, symmetric: bool) -> None:
    values = np.random.default_rng(1).uniform(-1, 1, 200_000).astype(np.float32)
    low, high = clipped_range(histogram_of(values), method, symmetric=symmetric)
    assert low < -0.95
    assert high > 0.95


@both_grids
@pytest.mark.parametrize("method", list(RangeMethod))
def test_no_range_reaches_beyond_the_values(method: RangeMethod, symmetric: bool) -> None:
    for values in (normal(5000), np.abs(normal(5000)), -np.abs(normal(5000)), np.full(50, 3.0, np.float32), np.zeros(9, np.float32)):
        low, high = clipped_range(histogram_of(values), method, symmetric=symmetric)
        assert values.min() <= low <= high <= values.max()


def test_percentile_leaves_out_the_rarest_hundred_thousandth_on_each_side() -> None:
    values = normal(400_000)
    low, high = clipped_range(histogram_of(values), RangeMethod.PERCENTILE, symmetric=False)
    assert 1 <= np.count_nonzero(values > high) <= 4
    assert 1 <= np.count_nonzero(values < low) <= 4


@pytest.mark.parametrize("method", [RangeMethod.MINMAX, RangeMethod.BEST])
def test_minmax_clips_nothing(method: RangeMethod) -> None:
    values = normal(1000, 500.0)
    assert clipped_range(histogram_of(values), method, symmetric=True) == (float(values.min()), 500.0)
