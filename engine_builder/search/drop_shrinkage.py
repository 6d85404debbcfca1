r"""What the bisection decides on: how far inside the budget an engine likely is on all data.

Where decisions have margins, they say it (``calibration.accuracy.margins``), and so do the samples of a score that is not 0 or 1. Where
scores are 0 or 1 and no more is known, the drop is shrunk towards what the flips predict.

A trial that changes a share f of the samples' scores has an observed budget slack x (negative: over budget) whose noise alone
has variance f / n. On budgets of a few samples that noise decides, not the engine. Flips are counted far more precisely, and the drop
they cause is beta f on average, with one beta for all engines of a model. So

    shrunk = w x + (1 - w) (b - beta f),   w = t^2 / (t^2 + f / n),   t = beta f

where b is the budget and beta the pooled drop per flip over all trials, at least half a flip over all of them together, so that one lucky
trial does not make all flips look free.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine_builder.records.trial import Accuracy


def drop_per_flip(seen: Sequence[Accuracy]) -> float:
    """Return beta: the mean drop per flipped sample over all trials, in 0..1."""
    flipped = sum(item.flips * item.samples for item in seen)
    dropped = sum((item.baseline - item.score) * item.samples for item in seen)
    return min(1.0, max(dropped, 0.5) / flipped) if flipped > 0 else 0.0


def shrunk_slack(accuracy: Accuracy, seen: Sequence[Accuracy]) -> float:
    """Return the budget slack that is likeliest given all trials; where scores are not 0 or 1, what the trial's own samples say.

    Args:
        accuracy: The trial to judge.
        seen: Every trial so far, this one among them.
    """
    if accuracy.likely_slack is not None and (accuracy.has_margins or not accuracy.binary or accuracy.flips == 0.0):
        return accuracy.likely_slack
    if not accuracy.binary or accuracy.flips == 0.0:
        return accuracy.excess
    budget = accuracy.excess + (accuracy.baseline - accuracy.score)
    expected = drop_per_flip(seen) * accuracy.flips
    noise = accuracy.flips / accuracy.samples
    trust = expected**2 / (expected**2 + noise)
    return trust * accuracy.excess + (1.0 - trust) * (budget - expected)
