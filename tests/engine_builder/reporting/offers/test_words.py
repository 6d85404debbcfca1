from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import BudgetKey
from engine_builder.reporting.body.job_result import ReportedBudget, ReportedOffer
from engine_builder.reporting.offers.words import budget_in_words, nearest_in_words, offers_in_words
from tests.engine_builder.report_body import OFFERS

FAST, SAFE = OFFERS.engines  # 1.43x inside 99.5%, 1.25x inside 99.88%


def row(words: str, engine: ReportedOffer | None, *, is_asked: bool = False) -> ReportedBudget:
    value = float(words.removesuffix("%")) / 100
    found = (None, None, None) if engine is None else (engine.fingerprint, engine.speedup, engine.verdict)
    return ReportedBudget({BudgetKey.MIN_RELATIVE: value}, words, is_asked, *found)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(min_relative=0.9999), "99.99%"),
        (Budget(min_relative=0.988), "98.8%"),
        (Budget(min_relative=1.0), "100%"),
        (Budget(max_drop=0.005), "a drop of 0.005"),
        (Budget(min_score=0.7512), "a score of 0.7512"),
        (Budget(max_nmse=0.00033), "NMSE 0.00033"),
        (Budget(min_psnr=37.4), "37.4 dB"),
    ],
)
def test_a_budget_is_said_as_users_say_it(budget: Budget, words: str) -> None:
    assert budget_in_words(budget) == words


def test_each_budget_says_its_speedup_and_none_is_said_too() -> None:
    rows = [row("99%", FAST), row("99.9%", SAFE), row("99.99%", None)]
    said = offers_in_words(rows, OFFERS.engines, is_predicted=False)
    assert said == "at 99%: 1.43x; at 99.9%: 1.25x; nothing faster is inside 99.99%"


def test_budgets_that_give_one_engine_are_said_together_and_the_own_is_marked() -> None:
    rows = [row("99%", FAST), row("99.5%", FAST, is_asked=True), row("99.9%", None), row("99.99%", None)]
    said = offers_in_words(rows, OFFERS.engines, is_predicted=True)
    assert said == "at 99% and 99.5% (asked for): 1.43x predicted; nothing faster is inside 99.9% or 99.99%"


def test_where_no_budget_gives_anything_the_engines_are_said_with_what_they_keep() -> None:
    rows = [row("99.9%", None, is_asked=True), row("99.99%", None)]
    said = offers_in_words(rows, OFFERS.engines, is_predicted=False)
    assert said == "at 99.88%: 1.25x; at 99.5%: 1.43x; nothing faster is inside 99.9% (asked for) or 99.99%"


def test_nothing_faster_at_all_is_said() -> None:
    assert offers_in_words([row("99%", None)], (), is_predicted=False).startswith("no engine that was tried is faster")


def test_a_kept_baseline_names_the_nearest_offers_first() -> None:
    assert nearest_in_words(OFFERS.engines, is_predicted=False) == "1.25x was to be had at 99.88%, 1.43x at 99.5%."
    assert nearest_in_words((), is_predicted=False) == ""


def test_an_engine_that_a_nearer_one_beats_is_not_named() -> None:
    slow = replace(FAST, fingerprint="f3", speedup=1.2, in_words="98%", keeps={BudgetKey.MIN_RELATIVE: 0.98})
    assert nearest_in_words((FAST, SAFE, slow), is_predicted=False) == nearest_in_words(OFFERS.engines, is_predicted=False)


def test_of_errors_less_is_nearer() -> None:
    engines = [
        replace(FAST, keeps={BudgetKey.MAX_NMSE: 0.02}, in_words="NMSE 0.02"),
        replace(SAFE, keeps={BudgetKey.MAX_NMSE: 0.01}, in_words="NMSE 0.01"),
    ]
    assert nearest_in_words(engines, is_predicted=False) == "1.25x was to be had at NMSE 0.01, 1.43x at NMSE 0.02."
