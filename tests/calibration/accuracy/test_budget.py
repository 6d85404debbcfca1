"""Budgets as a share, a drop or a least score: one claim about scores, and what samples say of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.budget import Budget, Claim
from calibration.accuracy.drop_posterior import probabilities_over, slack_draws
from calibration.accuracy.intervals import PairedTable
from calibration.accuracy.metrics import Metric
from calibration.accuracy.paired_claims import meets_with_confidence, samples_for_claim
from calibration.accuracy.resolution import resolution_note
from calibration.accuracy.verdict import AccuracyVerdict, Answer, Selection, drop_evidence, judge

Scores = NDArray[np.float64]


def scores(both: int, lost: int, gained: int, wrong: int) -> tuple[Scores, Scores]:
    """Return scores of the float model and of an engine, (samples,), as many of each cell."""
    cells = np.repeat([0, 1, 2, 3], [both, lost, gained, wrong])
    return np.isin(cells, (0, 1)).astype(np.float64), np.isin(cells, (0, 2)).astype(np.float64)


def judged(table: tuple[int, int, int, int], budget: Budget, metric: Metric = Metric.TOP1) -> AccuracyVerdict:
    return judge(metric, *scores(*table), budget, selection=Selection.SHARED, rng=np.random.default_rng(0))


def over(baseline: Scores, engine: Scores, budget: Budget, *, are_outputs_equal: bool = False) -> float:
    evidence = drop_evidence(Metric.TOP1, baseline, engine, budget, are_outputs_equal=are_outputs_equal)
    return probabilities_over(slack_draws([evidence], np.random.default_rng(0), are_chosen_from=False))[0]


@pytest.mark.parametrize("given", [{}, {"min_relative": 0.9, "max_drop": 0.1}, {"min_score": 1.1}, {"max_drop": -0.1}])
def test_a_budget_is_one_number_within_its_bounds(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected exactly one|must be within"):
        Budget(**given)


@pytest.mark.parametrize(
    ("budget", "claim", "allowed"),
    [
        (Budget(min_relative=0.99), Claim(0.99), 0.008),
        (Budget(max_drop=0.005), Claim(1.0, 0.005), 0.005),
        (Budget(min_score=0.75), Claim(0.0, -0.75), 0.05),
    ],
)
def test_margins_and_the_largest_drop_say_the_same_as_the_claim(budget: Budget, claim: Claim, allowed: float) -> None:
    assert budget.claim == claim
    assert budget.largest_drop(0.8) == pytest.approx(allowed)
    baseline, engine = np.array([0.8, 0.6]), np.array([0.7, 0.65])
    np.testing.assert_allclose(budget.margins(baseline, engine), engine - claim.ratio * baseline + claim.drop)


@pytest.mark.parametrize("lost", [0, 2, 5, 20])
def test_where_the_float_model_is_right_by_definition_all_three_are_one(lost: int) -> None:
    budgets = (Budget(min_relative=0.99), Budget(max_drop=0.01), Budget(min_score=0.99))
    one, *others = (judged((1000 - lost, lost, 0, 0), budget, Metric.AGREEMENT) for budget in budgets)
    for other in others:
        assert (other.answer, other.samples_needed) == (one.answer, one.samples_needed)
        assert (other.drop, other.budget) == pytest.approx((one.drop, one.budget))
        assert other.interval[1] == pytest.approx(one.interval[1])  # the exact bound; the other end has the float model's own spread


def test_a_drop_counts_in_full_whatever_the_float_model_scores() -> None:
    table = (5000, 20, 5, 4975)  # 15 of 10,000 lost, by a float model that is right half of the time
    assert judged(table, Budget(max_drop=0.0025)).answer is Answer.MET
    assert judged(table, Budget(min_relative=0.9975)).answer is not Answer.MET  # which allows half of that


def test_a_least_score_is_about_the_engine_alone() -> None:
    met, far = judged((7000, 500, 500, 2000), Budget(min_score=0.74)), judged((7500, 0, 0, 2500), Budget(min_score=0.74))
    assert met.answer is far.answer is Answer.MET
    assert met.probability_over_budget == pytest.approx(far.probability_over_budget, abs=0.01)
    assert judged((700, 50, 50, 200), Budget(min_score=0.76)).answer is Answer.NOT_MET
    few = judged((75, 0, 0, 25), Budget(min_score=0.74))
    assert few.answer is Answer.MET_ON_SAMPLE  # of 100 samples 75 may come from an engine of 0.70
    assert few.samples_needed is not None
    assert few.samples_needed > 1000


@pytest.mark.parametrize(
    ("cells", "claim"),
    [
        ((0.85, 0.03, 0.02, 0.10), Claim(1.0, 0.01)),
        ((0.70, 0.012, 0.002, 0.286), Claim(1.0, 0.01)),
        ((0.85, 0.03, 0.05, 0.07), Claim(0.0, -0.90)),
        ((0.99, 0.005, 0.0, 0.005), Claim(0.0, -0.99)),
    ],
)
def test_an_engine_at_the_edge_is_taken_for_inside_at_most_as_often_as_is_said(
    cells: tuple[float, float, float, float], claim: Claim
) -> None:
    draws = 600
    tables = np.random.default_rng(1).multinomial(400, cells, size=draws)
    rows, counts = np.unique(tables, axis=0, return_counts=True)
    wrong = sum(
        count
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True)
        if meets_with_confidence(PairedTable(*row), claim, 0.95, can_gain=True)
    )
    assert wrong / draws <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / draws)  # two standard errors of the simulation


def test_samples_that_would_show_a_claim_do_so() -> None:
    table = PairedTable(780, 10, 10, 200)
    for claim in (Claim(1.0, 0.005), Claim(0.0, -0.78)):
        needed = samples_for_claim(table, claim, 0.95, can_gain=True)
        assert needed is not None
        grown = PairedTable(*(round(cell * needed / table.n) for cell in (780, 10, 10, 200)))
        assert meets_with_confidence(grown, claim, 0.95, can_gain=True)


def test_how_likely_a_least_score_is_missed_counts_the_float_models_errors_too() -> None:
    assert over(*scores(95, 0, 0, 5), Budget(min_score=0.9)) < 0.1
    assert over(*scores(88, 0, 0, 12), Budget(min_score=0.9)) > 0.6
    assert over(*scores(10, 0, 0, 0), Budget(min_score=0.99)) > 0.5  # 10 right answers do not make 99%
    assert over(*scores(95, 0, 0, 5), Budget(min_score=0.9), are_outputs_equal=True) == 0.0


def test_samples_that_cannot_tell_a_drop_are_said_to() -> None:
    note = resolution_note(50, Budget(max_drop=0.001), has_margins=False)
    assert note is not None
    assert note.startswith("50 validation samples cannot tell a drop of 0.001 from none by counting (")
    assert resolution_note(50, Budget(min_score=0.9), has_margins=False) is None
