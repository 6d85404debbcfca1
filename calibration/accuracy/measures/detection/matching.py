r"""How well the detections of a picture match those that should be there.

At an IoU threshold each detection, best first, takes the free box of its class that it overlaps most, if by at least the threshold: it is
right; all others are wrong. All is averaged over the thresholds 0.5, 0.55, ..., 0.95.

* ``average_precision``: the mean over the recalls 0, 0.01, ..., 1 of the best precision at that recall or a higher one, as COCO has it, but
  of one picture, and with all its classes in one ranking. Scores count by their order only.
* ``detection_f1``: 2 right / (found + wanted), of the detections with a score of at least some threshold: a score that falls below counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.detection.boxes import iou
from calibration.accuracy.measures.detection.detections import NONE, Detections

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 64  # pictures compared at once

Doubles = NDArray[np.float64]


def average_precision(wanted: Detections, found: Detections, threshold: float) -> Doubles:
    """Return the average precision of each picture, (samples,), 0..1.

    Args:
        wanted: What should be found; scores say nothing.
        found: What was found.
        threshold: In a picture with nothing to be found any detection with at least this score is wrong: it then scores 0, else 1.
    """
    right = _right(wanted, found)
    there, some = (wanted.classes != NONE).sum(axis=1), found.classes != NONE
    hits = right.cumsum(axis=2)  # (samples, thresholds, ranks)
    precision = hits / np.maximum(some.cumsum(axis=1), 1)[:, None]
    precision[~np.broadcast_to(some[:, None], precision.shape)] = 0.0
    precision = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
    recall = hits / np.maximum(there, 1)[:, None, None]
    padded = np.concatenate([precision, np.zeros((*precision.shape[:2], 1))], axis=2)
    total = np.zeros(precision.shape[:2])
    for level in RECALLS:
        first = (recall < level).sum(axis=2)  # the first rank that reaches the recall
        total += np.take_along_axis(padded, first[..., None], axis=2)[..., 0]
    is_quiet = ~(some & (found.scores >= threshold)).any(axis=1)
    return np.asarray(np.where(there > 0, (total / len(RECALLS)).mean(axis=1), is_quiet), dtype=np.float64)


def detection_f1(wanted: Detections, found: Detections) -> Doubles:
    """Return the F1 of each picture's detections, (samples,), 0..1; 1 where nothing should be found and nothing is.

    Args:
        wanted: What should be found.
        found: What was found: both with the scores that count only.
    """
    right = _right(wanted, found).sum(axis=2)
    both = (wanted.classes != NONE).sum(axis=1) + (found.classes != NONE).sum(axis=1)
    f1 = np.where(both[:, None] > 0, 2.0 * right / np.maximum(both, 1)[:, None], 1.0)
    return np.asarray(f1.mean(axis=1), dtype=np.float64)


def _right(wanted: Detections, found: Detections) -> NDArray[np.bool_]:
    """Return which detections are right at each threshold, (samples, thresholds, ranks)."""
    samples, ranks = found.classes.shape
    right = np.zeros((samples, len(IOU_THRESHOLDS), ranks), dtype=np.bool_)
    least = np.minimum(IOU_THRESHOLDS, 1.0 - 1e-10)[:, None]
    for start in range(0, samples, _CHUNK):
        part = slice(start, start + _CHUNK)
        boxes, classes = wanted.boxes[part], wanted.classes[part]
        if not boxes.shape[1]:
            continue
        overlap = iou(found.boxes[part], boxes)
        is_same = (found.classes[part][:, :, None] == classes[:, None]) & (classes[:, None] != NONE)
        overlap = np.where(is_same, overlap, -1.0)
        free = np.ones((len(boxes), len(IOU_THRESHOLDS), boxes.shape[1]), dtype=np.bool_)
        for rank in range(ranks):
            of_rank = np.where(free, overlap[:, rank, None], -1.0)
            best = of_rank.argmax(axis=2)[..., None]
            hit = np.take_along_axis(of_rank, best, axis=2) >= least[None]
            right[part, :, rank] = hit[..., 0]
            np.put_along_axis(free, best, np.take_along_axis(free, best, axis=2) & ~hit, axis=2)
    return right
