"""What other budgets would give, in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import BudgetKey
from calibration.accuracy.offers.offered_budgets import ERRORS, GROWING, budget_key, budget_value
from engine_builder.reporting.body.job_result import ReportedBudget, ReportedOffer

NEAREST = 3  # engines named where the baseline is kept


def budget_in_words(budget: Budget) -> str:
    """Return a budget in a sentence: "99.9%" of the float model's score, "a drop of 0.001", "NMSE 0.001", "KL 0.01", "40 dB"."""
    key, value = budget_key(budget), budget_value(budget)
    if key is BudgetKey.MIN_RELATIVE:
        return f"{100.0 * value:.6g}%"
    if key is BudgetKey.MAX_DROP:
        return f"a drop of {value:.4g}"
    if key is BudgetKey.MIN_SCORE:
        return f"a score of {value:.6g}"
    if key in ERRORS:
        return f"{'NMSE' if key is BudgetKey.MAX_NMSE else 'KL'} {value:.3g}"
    return f"{value:.4g} dB"


def speedup_in_words(speedup: float, *, is_predicted: bool) -> str:
    """Return a speedup as it stands in a sentence."""
    return f"{speedup:.2f}x{' predicted' if is_predicted else ''}"


def offers_in_words(budgets: Sequence[ReportedBudget], engines: Sequence[ReportedOffer], *, is_predicted: bool) -> str:
    """Return what each budget would give: "at 99%: 2.00x; at 99.9%: 1.30x; nothing faster is inside 99.99%".

    Args:
        budgets: The loosest first.
        engines: The fastest first.
        is_predicted: Whether latencies are.
    """
    if not engines:
        return "no engine that was tried is faster than the baseline, whatever the budget"
    parts = []
    for fingerprint, group in itertools.groupby(budgets, key=lambda row: row.fingerprint):
        rows = list(group)
        if fingerprint is None:
            parts.append(f"nothing faster is inside {_listed((_named(row) for row in rows), 'or')}")
        elif (speedup := rows[0].speedup) is not None:
            parts.append(f"at {_listed(map(_named, rows), 'and')}: {speedup_in_words(speedup, is_predicted=is_predicted)}")
    if all(row.fingerprint is None for row in budgets):
        parts = [*(_had(engine, is_predicted=is_predicted) for engine in nearest(engines)), *parts]
    return "; ".join(parts)


def nearest_in_words(engines: Sequence[ReportedOffer], *, is_predicted: bool) -> str:
    """Return the nearest offers where the baseline is kept, as a sentence: "1.30x was to be had at 99.2%, 1.50x at 98.9%."."""
    found = [(engine.in_words, speedup_in_words(engine.speedup, is_predicted=is_predicted)) for engine in nearest(engines)]
    if not found:
        return ""
    (budget, speedup), *others = found
    return "".join([f"{speedup} was to be had at {budget}", *(f", {speedup} at {budget}" for budget, speedup in others), "."])


def nearest(engines: Sequence[ReportedOffer]) -> list[ReportedOffer]:
    """Return the engines that a budget not much looser would give, the nearest first; each is faster than all that are nearer.

    Args:
        engines: The fastest first.
    """
    kept: list[ReportedOffer] = []
    for engine in sorted(engines, key=_allowed):
        if not kept or engine.speedup > kept[-1].speedup:
            kept.append(engine)
    return kept[:NEAREST]


def _allowed(engine: ReportedOffer) -> float:
    """Return a number that grows with what the tightest budget of an engine allows."""
    ((key, value),) = engine.keeps.items()
    return value if key in GROWING else -value


def _had(engine: ReportedOffer, *, is_predicted: bool) -> str:
    return f"at {engine.in_words}: {speedup_in_words(engine.speedup, is_predicted=is_predicted)}"


def _named(row: ReportedBudget) -> str:
    return f"{row.in_words} (asked for)" if row.is_asked else row.in_words


def _listed(names: Iterable[str], word: str) -> str:
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last
