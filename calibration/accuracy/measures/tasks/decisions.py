"""Whether scores still lead to the same decisions: of a sigmoid classifier, a voice detector, rows of labels that may all be true.

A decision is a score of at least the threshold. A sample's score is the share of its decisions that are the labels', where there are
labels, else the float model's; 0 or 1 where it has a single one. How far scores move on the same side of the threshold shows nowhere in
that, so the largest change is told beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.values import as_rows
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

THRESHOLD = 0.5


def decisions(reference: NDArray[np.generic], output: NDArray[np.generic], threshold: float | None = None) -> NDArray[np.float64]:
    """Return the share of each sample's decisions that are the reference's, (samples,), 0..1; NaN is another decision than any.

    Args:
        reference: (samples, ...), the float model's scores.
        output: The same shape.
        threshold: A score of at least this is a decision; None: THRESHOLD.

    Raises:
        InvalidConfigError: No threshold is given, and the scores do not lie in 0..1.
    """
    at = threshold_for(reference, threshold)
    r, x = as_rows(reference).astype(np.float64), as_rows(output).astype(np.float64)
    same = ((r >= at) == (x >= at)) & (np.isfinite(x) | (r == x))
    return np.asarray(same.mean(axis=1), dtype=np.float64)


def labelled_decisions(
    labels: NDArray[np.generic], reference: NDArray[np.generic], output: NDArray[np.generic], threshold: float | None = None
) -> NDArray[np.float64]:
    """Return the share of each sample's decisions that are the labels', (samples,), 0..1; NaN is another decision than any.

    Args:
        labels: A 1 for each score that should be a decision, a 0 for each other, (samples, ...).
        reference: The float model's scores, (samples, ...), which say where the threshold is by default.
        output: The same shape.
        threshold: As for ``decisions``.

    Raises:
        InvalidCalibrationSetError: The labels are of another form.
        InvalidConfigError: As for ``decisions``.
    """
    at = threshold_for(reference, threshold)
    if labels.size != output.size or not np.isin(labels, (0, 1)).all():
        raise InvalidCalibrationSetError(
            f"labels: shape {labels.shape} found, {output.shape} of 0 and 1 expected: whether each score should be a decision",
            fix="Give 1 where the answer is yes and 0 where it is no, or leave the labels out to compare with the float model.",
        )
    x = as_rows(output).astype(np.float64)
    same = ((x >= at) == (as_rows(labels) != 0)) & ~np.isnan(x)
    return np.asarray(same.mean(axis=1), dtype=np.float64)


def threshold_for(reference: NDArray[np.generic], threshold: float | None) -> float:
    """Return the threshold that decides on these scores.

    Raises:
        InvalidConfigError: None is given, and the scores do not lie in 0..1.
    """
    if threshold is not None:
        return threshold
    low, high = (float(reference.min()), float(reference.max())) if reference.size else (0.0, 0.0)
    if low < 0.0 or high > 1.0:
        raise InvalidConfigError(
            f"accuracy.metric: scores in 0..1 expected where no threshold is given, found values from {low:.4g} to {high:.4g}",
            fix="Give accuracy.measure.threshold (0 for logits), or choose another metric.",
        )
    return THRESHOLD


def largest_change(reference: NDArray[np.generic], output: NDArray[np.generic]) -> float:
    """Return the largest change of a value over all samples, at least 0; infinity where a value is no number any more."""
    r, x = as_rows(reference).astype(np.float64), as_rows(output).astype(np.float64)
    with np.errstate(invalid="ignore"):
        change = np.where(r == x, 0.0, np.abs(x - r))
    return float(np.nan_to_num(change, nan=np.inf).max(initial=0.0))
