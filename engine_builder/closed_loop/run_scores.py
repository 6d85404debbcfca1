"""One score a sequence from the scores of its steps.

A sequence counts by

1. its last step, where labels are of whole sequences; else
2. its worst step, where the largest change of a value is what is measured (``MetricSpec.worst_step``), as of a sum or a position: the mean
   over many steps that are right would hide where it drifts away; else
3. the mean over its steps: the share of decisions that are right (scores in 0..1 are decisions), the mean cosine of vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.metrics import Better, Metric
from calibration.data.sample_axes import Array
from calibration.sequences.step_sequences import first_steps
from engine_builder.records.closed_loop import ClosedLoop

Scores = NDArray[np.float64]


def scores_of_runs(scores: Scores, loop: ClosedLoop | None, metric: Metric, reference: Sequence[Array]) -> Scores:
    """Return the score of each sequence, (sequences,), by the rules above; without a loop the scores as they are.

    Args:
        scores: Of each step, (steps,), the sequences one after another.
        loop: How they were run; None: the samples are single ones.
        metric: What the scores are.
        reference: The float model's outputs that the metric reads, each (steps, ...).
    """
    if loop is None:
        return scores
    starts = first_steps(loop.steps)
    if loop.is_judged_last:
        return np.asarray(scores[starts + loop.steps - 1], dtype=np.float64)
    if by_worst_step(metric, reference):
        worst = np.minimum if metric.spec.better is Better.HIGHER else np.maximum
        return np.asarray(worst.reduceat(scores, starts), dtype=np.float64)
    means = np.add.reduceat(scores, starts) / loop.steps
    same = np.minimum.reduceat(scores, starts)  # as it is, where a rounded mean of ones would be less than one
    return np.where(same == np.maximum.reduceat(scores, starts), same, means)


def by_worst_step(metric: Metric, reference: Sequence[Array]) -> bool:
    """Return whether sequences count by their worst step, by rule 2: also where cosine takes the closeness of single values.

    Args:
        metric: What the scores are.
        reference: As for ``scores_of_runs``.
    """
    has_closeness = metric.spec.of_single_values is not None
    by_change = [array for array in reference if metric.spec.worst_step or (has_closeness and array.size == len(array))]
    return any(not _are_scores(array) for array in by_change)


def _are_scores(array: Array) -> bool:
    """Return whether all values lie in 0..1."""
    values = array.astype(np.float64)
    return bool(np.all((values >= 0.0) & (values <= 1.0)))
