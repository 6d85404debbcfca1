"""Statistics of the benchmarks: the quality of an order, and paired intervals between two orders over draws.

Quality of an order of N layer precisions, with L_k the held-out loss when its first k layer precisions are low (lower is better):

    1/N * sum over k = 1..N of log10 L_k

Two orders are compared draw by draw: with d the differences of their qualities over n draws, the interval is Student's,
mean(d) -+ t(n - 1) * sd(d) / sqrt(n). What is common to both orders on a draw cancels. Where there is nothing to pair, as between the draws
of an order and the seeds of a random one, the interval is Welch's, of the difference of two means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

SMALLEST_LOSS = 1e-12  # below the rounding of float32 outputs
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences and its interval."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def word(self) -> str:
        """What the interval says where lower is better."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "no difference shown"


def order_quality(losses: Sequence[float]) -> float:
    """Return the mean log10 loss over the prefixes of an order; losses below ``SMALLEST_LOSS`` count as that."""
    if not losses:
        raise ValueError("an order without prefixes has no quality")
    return float(np.mean(np.log10(np.maximum(losses, SMALLEST_LOSS))))


def paired_difference(first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE) -> Difference:
    """Return first - second, paired by position.

    Args:
        first: At least two values.
        second: As many.
        confidence: Of the two-sided interval, 0..1.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"found {len(first)} and {len(second)} values, expected equally many, at least 2")
    d = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    mean = float(d.mean())
    reach = float(special.stdtrit(len(d) - 1, (1 + confidence) / 2)) * float(d.std(ddof=1)) / math.sqrt(len(d))
    return Difference(mean, mean - reach, mean + reach, len(d))


def difference_of_means(first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE) -> Difference:
    """Return mean(first) - mean(second) of independent values, with Welch's interval.

    Args:
        first: At least two values.
        second: At least two values.
        confidence: Of the two-sided interval, 0..1.
    """
    if len(first) < 2 or len(second) < 2:
        raise ValueError(f"found {len(first)} and {len(second)} values, expected at least 2 of each")
    parts = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    mean = float(parts[0].mean() - parts[1].mean())
    errors = [float(values.var(ddof=1)) / len(values) for values in parts]
    total = sum(errors)
    if total == 0.0:
        return Difference(mean, mean, mean, min(len(values) for values in parts))
    freedom = total**2 / sum(error**2 / (len(values) - 1) for error, values in zip(errors, parts, strict=True))
    reach = float(special.stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(total)
    return Difference(mean, mean - reach, mean + reach, min(len(values) for values in parts))
