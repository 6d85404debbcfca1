"""Whether a verdict would accept an engine, found without the rest of it: an interval and an exact bound take a search each.

A verdict (``verdict.judge``) is not ``not_met`` where the probability of being over the budget is below one half, and counts do not
contradict it: the interval of the slack theta ends at 0 or above. The end of the score interval is where the score statistic z(t), which
falls, reaches minus the normal quantile; it lies below 0 exactly where z(0) is below that, which takes one step instead of a search.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.budget import Budget
from calibration.accuracy.intervals import score_statistic
from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import (
    DEFAULT_CONFIDENCE,
    MOST_LIKELY_OVER,
    Answer,
    Selection,
    are_zeros_and_ones,
    judge,
    table_of,
)


def is_likely_inside(
    metric: Metric,
    baseline: NDArray[np.float64],
    engine: NDArray[np.float64],
    budget: Budget,
    *,
    probability_over_budget: float,
    rng: np.random.Generator,
) -> bool:
    """Return whether ``judge``, of whom no confidence is demanded, says ``met`` or ``met_on_sample``.

    Args:
        metric: What the scores are.
        baseline: (samples,) the float model's scores.
        engine: (samples,) the engine's scores on the same samples.
        budget: How much may be lost.
        probability_over_budget: Of the engine, 0-1 (``drop_posterior``).
        rng: For the bootstrap of real-valued scores.
    """
    if probability_over_budget >= MOST_LIKELY_OVER:
        return False
    if (claim := budget.claim) is not None and are_zeros_and_ones(metric, baseline, engine):
        quantile = NormalDist().inv_cdf(DEFAULT_CONFIDENCE)
        return score_statistic(table_of(baseline, engine), claim.ratio, -claim.drop) >= -quantile
    answer = judge(
        metric, baseline, engine, budget, selection=Selection.SHARED, rng=rng, probability_over_budget=probability_over_budget
    ).answer
    return answer is not Answer.NOT_MET
