from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import Metric
from engine_builder.records.trial import Accuracy
from engine_builder.search.confidence import certain, paired_table

BUDGET = Budget(min_relative=0.99)


def accuracy(both: int, lost: int, gained: int, wrong: int) -> Accuracy:
    n = both + lost + gained + wrong
    score, baseline = (both + gained) / n, (both + lost) / n
    return Accuracy(score, baseline, score - 0.99 * baseline, (lost + gained) / n, True, n)


@given(st.tuples(*[st.integers(0, 4000)] * 4).filter(any))
def test_the_table_comes_back_from_its_summary(cells: tuple[int, int, int, int]) -> None:
    both, lost, gained, wrong = cells
    table = paired_table(accuracy(both, lost, gained, wrong))
    assert (table.both, table.lost, table.gained, table.wrong) == cells


def test_a_budget_met_by_luck_is_not_certain() -> None:
    few = accuracy(both=180, lost=1, gained=1, wrong=18)
    assert few.met
    assert not certain(few, BUDGET, Metric.TOP1, 0.95).met


def test_a_budget_met_on_many_samples_is_certain() -> None:
    many = accuracy(both=9000, lost=10, gained=10, wrong=980)
    assert certain(many, BUDGET, Metric.TOP1, 0.95).met


def test_a_budget_that_is_not_met_is_never_certain() -> None:
    assert not certain(accuracy(both=8000, lost=900, gained=100, wrong=1000), BUDGET, Metric.TOP1, 0.5).met


def test_real_valued_scores_are_left_to_the_verdict() -> None:
    scores = Accuracy(0.995, 1.0, 0.005, 1.0, False, 100)
    assert certain(scores, BUDGET, Metric.COSINE, 0.95) == scores
