"""The margins that the scores of a metric are the signs of, where it has any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.margins.decision_margins import DecisionMargins, agreement_margins, label_margins, threshold_margins
from calibration.accuracy.measures.classes import by_class
from calibration.accuracy.measures.tasks.decisions import threshold_for
from calibration.accuracy.metrics import Metric, OutputKind

Array = NDArray[np.generic]
_NAMED = {Metric.TOP1: 1, Metric.TOP5: 5}  # classes that may be named


def margins_of(
    metric: Metric,
    kinds: Sequence[OutputKind],
    reference: Sequence[Array],
    outputs: Sequence[Array],
    labels: Array | None,
    threshold: float | None = None,
) -> DecisionMargins | None:
    """Return the margins of an engine's decisions, or None where a sample's score is not that of one decision by scores of classes.

    Where the agreement of several outputs is judged, the least clear one is what a sample's score hangs on, in each run.

    Args:
        metric: What the scores are; top1 and top5 read the first output.
        kinds: Of the scored outputs.
        reference: The float model's scored outputs, each (samples, ..., classes).
        outputs: The engine's, in the same order.
        labels: (samples,) class indices, for top1 and top5; 0 or 1 for decisions.
        threshold: Of decisions; None: that of the measure.
    """
    if metric is Metric.DECISIONS and len(reference) == 1 and reference[0].size == len(reference[0]) and np.isfinite(reference[0]).all():
        at = threshold_for(reference[0], threshold)
        is_share = bool(reference[0].min() >= 0.0 and reference[0].max() <= 1.0 and 0.0 < at < 1.0)
        given = None if labels is None else labels.reshape(-1)
        return threshold_margins(reference[0], outputs[0], at, labels=given, probabilities=is_share)
    if metric not in (Metric.AGREEMENT, *_NAMED):
        return None
    read = 1 if metric in _NAMED else len(outputs)
    if any(not _is_one_decision(array) for array in reference[:read]):
        return None
    are_probabilities = [kind is OutputKind.PROBABILITIES for kind in kinds]
    if metric in _NAMED:
        k = _NAMED[metric]
        if labels is None or by_class(reference[0]).shape[2] <= k:
            return None
        return label_margins(labels, reference[0], outputs[0], k=k, probabilities=are_probabilities[0])
    found = [
        agreement_margins(before, after, probabilities=is_probability)
        for before, after, is_probability in zip(reference, outputs, are_probabilities, strict=True)
    ]
    return DecisionMargins(np.min([one.reference for one in found], axis=0), np.min([one.engine for one in found], axis=0), can_gain=False)


def _is_one_decision(scores: Array) -> bool:
    return scores.dtype.kind == "f" and by_class(scores).shape[1] == 1 and by_class(scores).shape[2] > 1
