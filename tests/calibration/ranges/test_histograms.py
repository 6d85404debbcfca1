"""Histograms against plain counting."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibration.ranges.histograms import SIDE, Histogram


def counted(*batches: list[float]) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.array(batch, dtype=np.float32))
    return histogram


VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_every_value_is_counted_once_whatever_the_batches(batches: list[list[float]]) -> None:
    histogram = counted(*batches)
    values = np.concatenate([np.array(batch, dtype=np.float32) for batch in batches])
    assert histogram.total == len(values)
    assert histogram.zeros == np.count_nonzero(values == 0)
    assert (histogram.lowest, histogram.highest) == (values.min(), values.max())


def test_bins_hold_the_values_between_their_edges_after_the_width_has_doubled() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=5000).astype(np.float32), (rng.normal(size=5000) * 20).astype(np.float32)
    histogram = Histogram()
    histogram.add(first)
    narrow = histogram.width
    histogram.add(second)
    assert histogram.width > 2 * narrow
    edges = np.arange(-SIDE, SIDE + 1) * histogram.width
    expected, _ = np.histogram(np.concatenate([first, second]), edges)
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(expected)).max() <= 5  # values on an edge, to rounding


def test_at_least_half_of_the_bins_of_the_longer_side_are_in_use() -> None:
    histogram = counted([0.5, -0.25], [3.0], [100.0, -7.0])
    assert SIDE / 2 <= 100.0 / histogram.width <= SIDE


def test_nothing_and_only_zeros_have_no_width() -> None:
    assert counted([]).total == 0
    histogram = counted([0.0, 0.0, 0.0])
    assert (histogram.total, histogram.zeros, histogram.width) == (3, 3, 0.0)
