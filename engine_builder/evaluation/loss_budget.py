"""About how much loss an accuracy budget allows, as far as that can be known before any engine is measured."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.accuracy.budget import Budget
from calibration.accuracy.metrics import Metric, OutputKind


def allowed_loss(budget: Budget, metric: Metric, kinds: Sequence[OutputKind]) -> float | None:
    """Return about the loss (losses.py) of an engine that just keeps the budget, or None where the one says nothing of the other.

    Case 1. Classes found by the largest logit or probability: twice the drop. Let float predict the label with the probability that it
    gives, and let the log-odds z of the two best classes be spread evenly near 0. A shift by d flips |z| < |d| on one side of 0, which
    costs |z| / 2 each, d^2 / 4 together; the divergence is p (1 - p) d^2 / 2 each, d^2 / 2 together.
    Case 2. Cosine of values: twice the drop, since 1 - cosine ~ 1/2 ||d||^2 / ||z||^2, and the loss is ||d||^2 / ||z||^2.
    Case 3. Mean squared error of values: the budget is one of the loss itself.

    The metric's row says what it is: the factor, and the kinds of outputs that it holds for.

    Args:
        budget: Of accuracy.
        metric: What it is stated in.
        kinds: Of the outputs that the metric reads.
    """
    loss = metric.spec.loss_of_drop
    if loss is None or not kinds or not loss.kinds.issuperset(kinds):
        return None
    if budget.min_score is not None and not metric.is_perfect_by_definition:
        return None  # how far the float model itself is from it is not known
    return loss.factor * budget.largest_drop(metric.spec.perfect)
