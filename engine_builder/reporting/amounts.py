"""Speed-ups, risks and amounts of accuracy as they stand in a sentence."""

from __future__ import annotations

import math

from calibration.accuracy.metrics import Better, Metric

POINTS = 100.0  # in a score of 1
_SURELY = 0.99  # as sentences have it: ``calibration.accuracy.resolution``


def times_in_words(speedup: float, spread: float | None, *, is_predicted: bool) -> str:
    """Return a speed-up with its spread: "1.48x ± 0.003", "1.48x predicted".

    Args:
        speedup: Latency of the baseline / the engine's.
        spread: Its median absolute deviation; None or 0 where it has none.
        is_predicted: Whether latencies are.
    """
    if is_predicted or not spread:
        return f"{speedup:.2f}x{' predicted' if is_predicted else ''}"
    return f"{speedup:.2f}x ± {max(spread, 0.001):.1g}"


def as_fast_in_words(speedup: float, spread: float | None, *, is_predicted: bool) -> str:
    """Return a speed-up in a sentence about an engine: "1.48x as fast (± 0.003)"; arguments as of ``times_in_words``."""
    if is_predicted or not spread:
        return f"{speedup:.2f}x as fast{' (predicted)' if is_predicted else ''}"
    return f"{speedup:.2f}x as fast (± {max(spread, 0.001):.1g})"


def is_share(metric: Metric) -> bool:
    """Return whether scores are shares of 1, so that a change of them is told in points of 100."""
    return not metric.spec.unit and metric.spec.better is Better.HIGHER


def amount_in_words(metric: Metric, change: float) -> str:
    """Return an amount of accuracy in the unit of the budget: "0.25 points of top1", "1.2 dB of psnr", "0.003 of nmse"."""
    if is_share(metric):
        return f"{rounded(POINTS * change)} points of {metric}"
    return f"{rounded(change)}{' ' + metric.spec.unit if metric.spec.unit else ''} of {metric}"


def rounded(value: float) -> str:
    """Return a number with two digits, never as a power of ten where it can be read without."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:.2g}"
    digits = max(1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:.{digits}f}" if digits <= 6 else f"{value:.1e}"


def probability_in_a_cell(probability: float) -> str:
    """Return a probability as a cell of a table has it: "57.2%"; beyond 99% it is no better than what it assumes, "> 99%"."""
    if probability >= _SURELY:
        return f"> {_SURELY:.0%}"
    return f"< {1.0 - _SURELY:.0%}" if probability < 1.0 - _SURELY else f"{probability:.1%}"


def rounded_count(count: int) -> str:
    """Return a number that is only known about, with two digits: "5,600,000"."""
    return f"{round(count, min(2 - len(str(count)), 0)):,}"


def percent_in_words(share: float) -> str:
    """Return a share of time as a percentage: "1.4%", "12%"."""
    return f"{100.0 * share:.1f}%" if abs(share) < 0.1 else f"{100.0 * share:.0f}%"
