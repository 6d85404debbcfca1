r"""The range that each method picks from a tensor's histogram: what lies outside is clipped so that the rest is rounded more finely.

* percentile: all but the rarest hundred-thousandth of the values on each side;
* mse: least mean squared error of the 8-bit grid, by a search over shares t of the values' span,

      error(t) = s(t)^2 / 12 * (values inside) + sum of (value - limit)^2 over the values outside,      s: the grid's step

  (a value that is exactly zero has no error: every grid holds it);
* entropy: least Kullback-Leibler divergence between the histogram, what is clipped counted at the limits, and its 8-bit version, in which
  all bins of one level that hold anything hold the same (the rule of TensorRT's calibrator).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.grids import FP16_MAX, activation_grid
from calibration.number_formats.precision import Precision
from calibration.ranges.histograms import Histogram
from calibration.ranges.range_table import RangeMethod

Span = tuple[float, float]

RAREST = 1e-5  # share of the values left out on each side
SHARES = np.geomspace(0.02, 1.0, 80)  # of the span, which the searches try
SHARES_OF_ENTROPY = np.linspace(0.2, 1.0, 33)  # finer steps show nothing but the noise of the bins
_SMALLEST_COUNT = 1e-4  # of a level's share in a bin, so that its logarithm exists


def is_beyond_fp16(span: Span) -> bool:
    """Return whether a range reaches farther than FP16 does: nothing of it may be left out, or an engine would compute it in FP16."""
    return max(-span[0], span[1]) > FP16_MAX


def clipped_range(histogram: Histogram, method: RangeMethod, *, symmetric: bool) -> Span:
    """Return the range that a method picks, inside the values seen; all of them where some are beyond FP16, which the range then tells.

    Args:
        histogram: Of the tensor; at least one value was counted.
        method: MINMAX gives the values' own span; so do AUTO and BEST, which are decided by measurement elsewhere.
        symmetric: The grid is signed with zero point 0; otherwise it is unsigned with a zero point.
    """
    choose = _METHODS.get(method)
    lowest, highest = float(histogram.lowest), float(histogram.highest)
    if choose is None or not histogram.width or is_beyond_fp16((lowest, highest)):
        return lowest, highest
    low, high = choose(histogram, symmetric)
    return max(low, lowest), min(high, highest)


def _percentile(histogram: Histogram, symmetric: bool) -> Span:
    counts, rare = histogram.counts.astype(np.float64), RAREST * histogram.total
    counts[len(counts) // 2] += histogram.zeros
    edges = (np.arange(len(counts) + 1) - len(counts) // 2) * histogram.width
    if symmetric:
        half = len(counts) // 2
        folded = counts[half:] + counts[:half][::-1]
        limit = float(edges[half + _kept(folded, rare)])
        return -limit, limit
    return float(edges[::-1][_kept(counts[::-1], rare)]), float(edges[_kept(counts, rare)])


def _kept(counts: NDArray[np.float64], rare: float) -> int:
    """Return how many bins are left when those at the end are dropped that hold no more than ``rare`` values together."""
    tail = np.cumsum(counts[::-1])[::-1]
    return int(np.count_nonzero(tail > rare))


def _mse(histogram: Histogram, symmetric: bool) -> Span:
    centres, counts = histogram.centres, histogram.counts

    def error(span: Span) -> float:
        step = float(activation_grid(*span, bits=Precision.INT8.bits, symmetric=symmetric)[0])
        low, high = (min(span[0], 0.0), max(span[1], 0.0)) if not symmetric else (-step * 128, step * 127)
        beyond = np.maximum(centres - high, 0.0) + np.maximum(low - centres, 0.0)
        inside = int(counts[beyond == 0.0].sum())
        return inside * step**2 / 12.0 + float(counts @ beyond**2)

    if symmetric:
        reach = max(-histogram.lowest, histogram.highest)
        return min([(-float(share * reach), float(share * reach)) for share in SHARES[::-1]], key=error)
    lowest, highest = min(histogram.lowest, 0.0), max(histogram.highest, 0.0)
    span = (lowest, highest)
    for _ in range(2):  # one side after the other
        span = min([(span[0], float(share * highest)) for share in SHARES[::-1]], key=error)
        span = min([(float(share * lowest), span[1]) for share in SHARES[::-1]], key=error)
    return span


def _entropy(histogram: Histogram, symmetric: bool) -> Span:
    if symmetric:
        reach = max(-histogram.lowest, histogram.highest)
        spans = [(-float(share * reach), float(share * reach)) for share in SHARES_OF_ENTROPY[::-1]]
    else:
        lowest, highest = min(histogram.lowest, 0.0), max(histogram.highest, 0.0)
        spans = [(float(share * lowest), float(share * highest)) for share in SHARES_OF_ENTROPY[::-1]]
    return min(spans, key=lambda span: _divergence(histogram, span, symmetric))


def _divergence(histogram: Histogram, span: Span, symmetric: bool) -> float:
    """Return the divergence between what a range keeps and its rounded form; infinite where the range holds nothing."""
    middles = (np.arange(len(histogram.counts)) + 0.5 - len(histogram.counts) // 2) * histogram.width
    inside = (middles >= span[0]) & (middles <= span[1])
    counts = histogram.counts[inside].astype(np.float64)
    if not counts.sum():
        return float("inf")
    scale, zero_point, lowest, highest = activation_grid(*span, bits=Precision.INT8.bits, symmetric=symmetric)
    levels = np.clip(np.round(middles[inside] / float(scale)) + zero_point, lowest, highest).astype(np.int64) - lowest
    filled = counts > 0
    in_level = np.bincount(levels, weights=counts, minlength=highest - lowest + 1)
    bins_of_level = np.bincount(levels, weights=filled, minlength=highest - lowest + 1)
    rounded = np.where(filled, in_level[levels] / np.maximum(bins_of_level[levels], 1.0), 0.0)
    target = counts.copy()
    target[0] += histogram.counts[middles < span[0]].sum()
    target[-1] += histogram.counts[middles > span[1]].sum()
    p, q = target / target.sum(), np.maximum(rounded / rounded.sum(), _SMALLEST_COUNT / rounded.sum())
    positive = p > 0
    return float(np.sum(p[positive] * np.log(p[positive] / q[positive])))


_METHODS: Mapping[RangeMethod, Callable[[Histogram, bool], Span]] = {
    RangeMethod.PERCENTILE: _percentile,
    RangeMethod.MSE: _mse,
    RangeMethod.ENTROPY: _entropy,
}
