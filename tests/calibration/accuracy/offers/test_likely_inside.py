from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import Metric
from calibration.accuracy.offers.likely_inside import is_likely_inside
from calibration.accuracy.verdict import Answer, Selection, judge

shares = st.floats(0.0, 1.0)
counts = st.integers(0, 60)


@settings(max_examples=25)  # a whole verdict takes its time
@given(counts, counts, counts, counts, st.sampled_from(["min_relative", "max_drop", "min_score"]), shares, shares)
def test_decisions_are_accepted_where_the_verdict_is_not_that_the_budget_is_missed(
    both: int, lost: int, gained: int, wrong: int, key: str, value: float, probability: float
) -> None:
    cells = [(1.0, 1.0)] * both + [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained + [(0.0, 0.0)] * wrong
    baseline, engine = np.array(cells or [(1.0, 1.0)]).T
    _holds_as_the_verdict(Metric.TOP1, baseline, engine, Budget(**{key: value}), probability)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.0, 0.2), shares)
def test_real_values_are_accepted_where_the_verdict_is_not_that_the_budget_is_missed(
    seed: int, n: int, most: float, probability: float
) -> None:
    errors = np.random.default_rng(seed).exponential(0.05, n)
    _holds_as_the_verdict(Metric.NMSE, np.zeros(n), errors, Budget(max_nmse=most + 1e-6), probability)


def _holds_as_the_verdict(metric: Metric, baseline: np.ndarray, engine: np.ndarray, budget: Budget, probability: float) -> None:
    told = judge(
        metric,
        baseline,
        engine,
        budget,
        selection=Selection.SHARED,
        rng=np.random.default_rng(0),
        probability_over_budget=probability,
        counts_needed=False,
    )
    likely = is_likely_inside(metric, baseline, engine, budget, probability_over_budget=probability, rng=np.random.default_rng(0))
    assert likely == (told.answer is not Answer.NOT_MET)
