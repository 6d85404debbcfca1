"""What a demanded confidence does to the search: an engine counts as inside the budget only where these samples would show it.

Without this the search would walk to the boundary of the budget, and the verdict would refuse every engine it finds there.
"""

from __future__ import annotations

import dataclasses

from calibration.accuracy.intervals import PairedTable
from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import Budget, meets_with_confidence
from engine_builder.records.trial import Accuracy


def certain(accuracy: Accuracy, budget: Budget, metric: Metric, confidence: float) -> Accuracy:
    """Return the accuracy with its budget slack below zero unless the budget is met with the confidence, on as many samples as it has.

    Scores that are real-valued or other than 0 and 1 are returned as they are: their summary does not say how sure they are, the verdict
    does.

    Args:
        accuracy: Of a trial.
        budget: How much may be lost.
        metric: What the scores are.
        confidence: Of each end of the verdict's interval, 0.5-1.
    """
    if not accuracy.binary or metric.is_real_valued or budget.min_relative is None:
        return accuracy
    table = paired_table(accuracy)
    if meets_with_confidence(table, budget.min_relative, confidence, can_gain=not metric.is_perfect_by_definition):
        return dataclasses.replace(accuracy, binary=False)  # settled: nothing is left to shrink
    return dataclasses.replace(accuracy, excess=min(accuracy.excess, -1.0 / accuracy.samples), binary=False)


def paired_table(accuracy: Accuracy) -> PairedTable:
    """Return how many samples only the float model, only the engine, both or neither scored, from an accuracy of 0/1 scores."""
    n = accuracy.samples
    flipped, dropped = round(accuracy.flips * n), round((accuracy.baseline - accuracy.score) * n)
    lost = (flipped + dropped) // 2
    both = round(accuracy.baseline * n) - lost
    return PairedTable(both=both, lost=lost, gained=flipped - lost, wrong=n - both - flipped)
