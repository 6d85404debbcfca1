from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import BUDGETS_OF_SCORES, BudgetKey
from calibration.accuracy.offers.offered_budgets import (
    budget_key,
    budget_of,
    budget_value,
    budgets_around,
    is_inside,
    is_looser,
    usual_budgets,
)

KEYS = st.sampled_from(BudgetKey)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (BudgetKey.MIN_RELATIVE, [0.99, 0.999, 0.9999]),
        (BudgetKey.MAX_NMSE, [0.01, 0.001, 0.0001]),
        (BudgetKey.MIN_PSNR, [30.0, 40.0, 50.0]),
        (BudgetKey.MAX_DROP, [0.01, 0.001, 0.0001]),
        (BudgetKey.MIN_SCORE, [0.792, 0.7992, 0.79992]),  # such shares of the float model's 0.8
    ],
)
def test_the_usual_budgets_come_loosest_first(key: BudgetKey, values: list[float]) -> None:
    budgets = usual_budgets(key, 0.8)
    assert [budget_value(budget) for budget in budgets] == values
    assert all(is_looser(one, other) and not is_looser(other, one) for one, other in itertools.pairwise(budgets))


@given(KEYS, st.floats(0.001, 1.0))
def test_a_budget_is_its_key_and_its_value(key: BudgetKey, value: float) -> None:
    budget = budget_of(key, value)
    assert (budget_key(budget), budget_value(budget)) == (key, value)


@pytest.mark.parametrize(
    ("key", "baseline", "engine", "tightest"),
    [
        (BudgetKey.MIN_RELATIVE, 0.8, 0.8, 0.9999),  # nothing finer than the finest usual one is promised
        (BudgetKey.MIN_RELATIVE, 0.8, 0.9, 0.9999),
        (BudgetKey.MIN_RELATIVE, 0.8, 0.8 * (1 - 0.01123), 0.988),
        (BudgetKey.MIN_RELATIVE, 1.0, 0.98, 0.98),
        (BudgetKey.MAX_DROP, 0.8, 0.79677, 0.0033),
        (BudgetKey.MAX_DROP, 0.8, 0.9, 0.0001),
        (BudgetKey.MIN_SCORE, 0.8, 0.8 * (1 - 0.01123), 0.7904),
        (BudgetKey.MAX_NMSE, 0.0, 0.000324, 0.00033),
        (BudgetKey.MAX_NMSE, 0.0, 1e-7, 0.0001),
        (BudgetKey.MIN_PSNR, 120.0, 37.46, 37.4),
    ],
)
def test_the_tightest_budget_allows_what_was_measured_with_two_digits(
    key: BudgetKey, baseline: float, engine: float, tightest: float
) -> None:
    assert budget_value(budgets_around(key, baseline, engine)[0]) == pytest.approx(tightest, abs=1e-12)


@given(KEYS, st.floats(0.5, 1.0), st.floats(0.0, 0.6))
def test_the_budgets_around_an_engine_hold_it_and_grow_looser(key: BudgetKey, baseline: float, lost: float) -> None:
    score = baseline * (1 - lost)
    known = dict.fromkeys(BUDGETS_OF_SCORES, score) | {BudgetKey.MAX_NMSE: lost}
    engine = known.get(key, 60 * (1 - lost))  # else decibels
    budgets = budgets_around(key, baseline, engine)
    assert all(is_inside(budget, baseline, engine) for budget in budgets)
    assert all(is_looser(other, one) for one, other in itertools.pairwise(budgets))


@pytest.mark.parametrize(
    ("key", "engine"),
    [
        (BudgetKey.MIN_RELATIVE, 0.3),
        (BudgetKey.MAX_DROP, 0.3),
        (BudgetKey.MIN_SCORE, 0.3),
        (BudgetKey.MAX_NMSE, 0.7),
        (BudgetKey.MIN_PSNR, 2.0),
        (BudgetKey.MIN_SI_SNR, 2.0),
    ],
)
def test_an_engine_that_lost_nearly_everything_has_none(key: BudgetKey, engine: float) -> None:
    assert budgets_around(key, 1.0, engine) == ()


def test_no_share_of_a_score_of_nothing_can_be_kept() -> None:
    assert budgets_around(BudgetKey.MIN_RELATIVE, 0.0, 0.0) == ()


def test_a_mean_on_the_budget_is_inside_it_and_one_below_is_not() -> None:
    budget = Budget(min_relative=0.99)
    assert is_inside(budget, 0.8, 0.99 * 0.8)
    assert not is_inside(budget, 0.8, 0.79)
