r"""Budgets that a user did not ask for: the usual ones, and those around what an engine lost.

A budget allows a number to grow: 1 - r for a share r of the float model's score, the drop or the error itself where that is stated. The
tightest budget that an engine may keep allows what was measured, rounded up to two digits, and no less than the finest usual budget does;
each next one allows a quarter more, up to half of everything. A least score is stated by such a share of the float model's score. Of
decibels (PSNR, SI-SNR) it is the measured number, rounded down to a tenth, and then a decibel less each time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import BudgetKey

USUAL: Mapping[BudgetKey, tuple[float, ...]] = MappingProxyType(  # the loosest first
    {
        BudgetKey.MIN_RELATIVE: (0.99, 0.999, 0.9999),
        BudgetKey.MAX_DROP: (0.01, 0.001, 0.0001),
        BudgetKey.MIN_SCORE: (0.99, 0.999, 0.9999),  # of the float model's score
        BudgetKey.MAX_NMSE: (0.01, 0.001, 0.0001),
        BudgetKey.MAX_KL: (0.01, 0.001, 0.0001),
        BudgetKey.MIN_PSNR: (30.0, 40.0, 50.0),
        BudgetKey.MIN_SI_SNR: (20.0, 30.0, 40.0),
    }
)
ERRORS = frozenset({BudgetKey.MAX_NMSE, BudgetKey.MAX_KL})  # of which the float model has none
GROWING = ERRORS | {BudgetKey.MAX_DROP}  # the larger, the looser
_LOOSER = 1.25
_DIGITS = 2
_SCORE_DIGITS = 6
_MOST_LOST = 0.5  # of the float model's score, or of the outputs' mean square, or half a nat: an engine that loses more is no offer
_LEAST_PSNR = 3.0  # decibels; about the same
_FINEST_PSNR = 100.0
_DECIBELS = frozenset({BudgetKey.MIN_PSNR, BudgetKey.MIN_SI_SNR})
_ROUNDING = 1e-9


def budget_key(budget: Budget) -> BudgetKey:
    """Return how a budget is stated."""
    return next(key for key in BudgetKey if getattr(budget, key) is not None)


def budget_value(budget: Budget) -> float:
    """Return the number of a budget."""
    return float(getattr(budget, budget_key(budget)))


def budget_of(key: BudgetKey, value: float) -> Budget:
    """Return the budget of this number; the other direction of ``budget_key`` and ``budget_value``."""
    return Budget(**{key.value: value})


def usual_budgets(key: BudgetKey, baseline: float) -> tuple[Budget, ...]:
    """Return the usual budgets, the loosest first.

    Args:
        key: How the budgets are stated.
        baseline: The float model's mean score, which least scores are stated by.
    """
    if key is BudgetKey.MIN_SCORE:
        return tuple(budget_of(key, _rounded_score(value * baseline)) for value in USUAL[key]) if 0.0 < baseline <= 1.0 else ()
    return tuple(budget_of(key, value) for value in USUAL[key])


def is_looser(budget: Budget, other: Budget) -> bool:
    """Return whether a budget allows more than another one that is stated in the same way."""
    one, two = budget_value(budget), budget_value(other)
    return one > two if budget_key(budget) in GROWING else one < two


def is_inside(budget: Budget, baseline: float, engine: float) -> bool:
    """Return whether a mean score is inside a budget, given the float model's."""
    return float(budget.margins(np.array([baseline]), np.array([engine]))[0]) >= -_ROUNDING


def budgets_around(key: BudgetKey, baseline: float, engine: float) -> tuple[Budget, ...]:
    """Return budgets that an engine may keep, the tightest first; none for one that lost nearly everything.

    Args:
        key: How the budgets are stated.
        baseline: The float model's mean score.
        engine: The engine's.
    """
    if key in _DECIBELS:
        start = min(math.floor(engine * 10.0 + _ROUNDING) / 10.0, _FINEST_PSNR)
        return tuple(budget_of(key, round(start - step, 1)) for step in range(max(math.ceil(start - _LEAST_PSNR), 0)))
    is_share, is_score = key is BudgetKey.MIN_RELATIVE, key is BudgetKey.MIN_SCORE
    if (is_share or is_score) and not baseline > 0.0:
        return ()
    finest = USUAL[key][-1] if key in GROWING else 1.0 - USUAL[key][-1]
    lost = engine if key in ERRORS else baseline - engine if key is BudgetKey.MAX_DROP else 1.0 - engine / baseline
    allowed = [_rounded_up(max(lost, finest))]
    while allowed[-1] <= _MOST_LOST:
        allowed.append(_rounded_up(allowed[-1] * _LOOSER))
    if is_score:
        scores = dict.fromkeys(_rounded_score((1.0 - value) * baseline) for value in allowed[:-1])
        return tuple(budget_of(key, score) for score in scores if score <= 1.0)
    return tuple(budget_of(key, round(1.0 - value, 12) if is_share else value) for value in allowed[:-1])


def _rounded_score(score: float) -> float:
    """Return a score that is no larger, with as many digits as offers tell."""
    return math.floor(score * 10.0**_SCORE_DIGITS) / 10.0**_SCORE_DIGITS


def _rounded_up(value: float) -> float:
    """Return a positive number with two digits that is no smaller, but for the rounding of its own arithmetic."""
    digits = _DIGITS - 1 - math.floor(math.log10(value))
    return float(f"{math.ceil(value * 10.0**digits - _ROUNDING * 10.0**_DIGITS) / 10.0**digits:.12g}")
