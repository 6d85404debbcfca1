"""What a demanded confidence does to the search: an engine counts as inside the budget only where these samples would show it.

Without this the search would walk to the boundary of the budget, and the verdict would refuse every engine it finds there. The error
probability is shared out among the engines that were tried, as in the verdict, unless samples are kept apart for that. A claim from half of
the samples at the full level asks for less than one from all of them at a level shared out among a dozen engines, so where a confidence is
demanded, samples are kept apart as soon as those can show anything.
"""

from __future__ import annotations

import dataclasses

from calibration.accuracy.budget import Budget
from calibration.accuracy.intervals import PairedTable
from calibration.accuracy.margins.selection import corrected_confidence
from calibration.accuracy.metrics import Metric
from calibration.accuracy.paired_claims import meets_with_confidence
from calibration.accuracy.verdict import DEFAULT_CONFIDENCE, can_decide
from engine_builder.config.accuracy import AccuracyConfig
from engine_builder.records.trial import SEARCH_SHARE, Accuracy


def certain(accuracy: Accuracy, budget: Budget, metric: Metric, confidence: float, *, chosen_from: int = 1) -> Accuracy:
    """Return the accuracy with its budget slack below zero unless the budget is met with the confidence, on as many samples as it has.

    Of scores that are real-valued or other than 0 and 1 the summary says no more than how likely they are over the budget, which must then
    be as unlikely as the confidence demands; where that was not estimated either, they are returned as they are.

    Args:
        accuracy: Of a trial.
        budget: How much may be lost.
        metric: What the scores are.
        confidence: Of each end of the verdict's interval, 0.5-1.
        chosen_from: How many engines could be chosen by the same samples.
    """
    tested = corrected_confidence(confidence, chosen_from)
    is_likely = accuracy.probability_over is None or accuracy.probability_over <= 1.0 - confidence
    if accuracy.binary and not metric.is_real_valued and (claim := budget.claim) is not None:
        table = paired_table(accuracy)
        can_gain = not metric.is_perfect_by_definition
        is_sure = is_likely and meets_with_confidence(table, claim, tested, can_gain=can_gain)
    elif accuracy.probability_over is None:
        return accuracy
    else:
        is_sure = accuracy.probability_over <= 1.0 - tested
    settled = dataclasses.replace(accuracy, binary=False, probability_over=None, likely_slack=None)  # nothing is left to shrink
    return settled if is_sure else dataclasses.replace(settled, excess=min(accuracy.excess, -1.0 / accuracy.samples))


def keeps_some_apart(samples: int, flips: float, accuracy: AccuracyConfig, metric: Metric, *, is_binary: bool) -> bool:
    """Return whether the search must leave some of the samples to the verdict: those can decide on the budget by themselves.

    Args:
        samples: Of the validation set.
        flips: Share of the samples whose score an engine of about the right accuracy changes, 0-1.
        accuracy: What the user asks for.
        metric: What the scores are.
        is_binary: Whether all scores seen so far are 0 or 1.
    """
    left, expected = samples - round(samples * SEARCH_SHARE), 0.0 if accuracy.confidence is not None else flips
    confidence = accuracy.confidence or DEFAULT_CONFIDENCE
    return can_decide(left, expected, accuracy.budget, confidence, metric=metric, is_binary=is_binary)


def paired_table(accuracy: Accuracy) -> PairedTable:
    """Return how many samples only the float model, only the engine, both or neither scored, from an accuracy of 0/1 scores."""
    n = accuracy.samples
    flipped, dropped = round(accuracy.flips * n), round((accuracy.baseline - accuracy.score) * n)
    lost = (flipped + dropped) // 2
    both = round(accuracy.baseline * n) - lost
    return PairedTable(both=both, lost=lost, gained=flipped - lost, wrong=n - both - flipped)
