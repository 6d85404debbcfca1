"""Claims with a confidence about paired 0/1 scores: that an engine keeps its budget, and how many samples would show it.

The bounds are those of ``intervals``. A claim is wrong in at most 1 - confidence of all jobs, whatever the data; where the engine was
chosen among others by the same samples, the error probability is shared out among them (``margins.selection``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from calibration.accuracy.budget import Claim
from calibration.accuracy.intervals import PairedTable, is_drop_below, margin, proportion_lower_bound, score_statistic
from calibration.accuracy.margins.selection import corrected_confidence

ROUNDING = 1e-12  # relative error of a sum of scores that is forgiven


def meets_with_confidence(table: PairedTable, claim: Claim, confidence: float, *, can_gain: bool) -> bool:
    """Return whether both the score bound and the exact bound on the margin lie inside the budget.

    Args:
        table: The paired 0/1 scores.
        claim: What is to be shown of the accuracy.
        confidence: Of each bound, 0.5-1: true of an engine over the budget at most 1 - confidence of the time.
        can_gain: Whether the engine can be right where the baseline is wrong; it cannot where the baseline is right by definition.
    """
    if slack(table, claim) <= 0 or score_statistic(table, claim.ratio, -claim.drop) < NormalDist().inv_cdf(confidence):
        return False  # the cheap one is asked first: it does not even import scipy
    if is_absolute(claim, can_gain=can_gain):
        return proportion_lower_bound(table.both + table.gained, table.n, confidence) >= -claim.drop
    allowed, left = exact_budget(table, claim, confidence, can_gain=can_gain)
    return is_drop_below(allowed, table.n, table.lost, table.gained, left, can_gain=can_gain)


def is_surely_inside(
    table: PairedTable, claim: Claim, confidence: float, *, can_gain: bool, probability_over_budget: float, chosen_from: int = 1
) -> bool:
    """Return whether an engine keeps its budget with a confidence: a wrong yes is given in at most 1 - confidence of all jobs.

    Args:
        table: The paired 0/1 scores.
        claim: What the budget claims.
        confidence: Asked for, 0.5-1.
        can_gain: Whether the engine can be right where the float model is wrong.
        probability_over_budget: Of the engine, 0-1 (``drop_posterior``), which knows of samples that kept their class by a hair.
        chosen_from: How many engines could have been chosen by the same samples; 1 for samples that the search did not see.
    """
    if probability_over_budget > 1.0 - confidence:
        return False
    return meets_with_confidence(table, claim, corrected_confidence(confidence, chosen_from), can_gain=can_gain)


def slack(table: PairedTable, claim: Claim) -> float:
    """Return how far inside the claim the samples are; negative: outside."""
    return margin(table, claim.ratio) + claim.drop


def is_absolute(claim: Claim, *, can_gain: bool) -> bool:
    """Return whether a claim is about the engine's accuracy alone, whatever the baseline's; where that is 1 by definition, none is."""
    return can_gain and claim.ratio == 0.0


def exact_budget(table: PairedTable, claim: Claim, confidence: float, *, can_gain: bool) -> tuple[float, float]:
    """Return the least drop that may still be allowed, (1 - r) P(baseline right) + d, and the confidence left for the bound on the drop."""
    ratio = claim.ratio
    if not can_gain:
        return 1 - ratio + claim.drop, confidence
    if ratio == 1.0:
        return claim.drop, confidence
    alpha = 1 - confidence
    baseline = proportion_lower_bound(table.both + table.lost, table.n, 1 - _BASELINE_LEVEL * alpha)
    return (1 - ratio) * baseline + claim.drop, 1 - (1 - _BASELINE_LEVEL) * alpha


def samples_for_claim(table: PairedTable, claim: Claim, confidence: float, *, can_gain: bool) -> int | None:
    """Return how many samples with the same rates would show that the budget is met; None where none would."""
    if slack(table, claim) <= ROUNDING:
        return None

    def is_enough(n: int) -> bool:
        lost, gained = math.ceil(table.lost * n / table.n - ROUNDING), math.floor(table.gained * n / table.n + ROUNDING)
        wrong = min(n - lost - gained, math.floor(table.wrong * n / table.n + ROUNDING))
        return meets_with_confidence(PairedTable(n - lost - gained - wrong, lost, gained, wrong), claim, confidence, can_gain=can_gain)

    return least_samples(is_enough, table.n + 1, precision=_SAMPLES_PRECISION)


def least_samples(is_enough: Callable[[int], bool], start: int, *, precision: float = 0.0) -> int | None:
    """Return the least n >= start that is enough, to a relative precision; None beyond a billion."""
    low, high = start - 1, start
    while not is_enough(high):
        low, high = high, high * 2
        if high > _MOST_SAMPLES:
            return None
    while high - low > max(1, int(precision * high)):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


_BASELINE_LEVEL = 0.02  # share of the error probability that is paid for not knowing the baseline's accuracy
_SAMPLES_PRECISION = 0.01
_MOST_SAMPLES = 10**9
