"""The detections of each picture, best first, and the suppression of those that say the same thing twice (NMS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.detection.boxes import iou

LEAST_SCORE = 0.001  # detections below are not looked at, as is usual for average precision
CANDIDATES = 300  # of a picture, the best ones, before suppression
MOST = 100  # of a picture, after it, as is usual for average precision
NONE = -1  # the class of what is no detection: padding
_CHUNK = 32  # pictures compared at once

Doubles = NDArray[np.float64]
Classes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes with classes, k a picture at most; best first, padding (class NONE, score 0) last."""

    boxes: Doubles  # (samples, k, 4) corners
    classes: Classes  # (samples, k)
    scores: Doubles  # (samples, k), 0..1

    def at_least(self, score: float) -> Detections:
        """Return those with a score of at least ``score``; the others become padding."""
        is_kept = (self.classes != NONE) & (self.scores >= score)
        return sorted_detections(self.boxes, np.where(is_kept, self.classes, NONE), self.scores, MOST)


def sorted_detections(boxes: Doubles, classes: Classes, scores: Doubles, most: int) -> Detections:
    """Return the ``most`` best detections of each picture, best first, whatever order they come in; any that is not finite is none.

    Args:
        boxes: (samples, rows, 4) corners.
        classes: (samples, rows), NONE for padding.
        scores: (samples, rows).
        most: At least 1.
    """
    is_kept = (classes != NONE) & np.isfinite(scores) & (scores >= LEAST_SCORE) & np.isfinite(boxes).all(axis=-1)
    scores, classes = np.where(is_kept, scores, 0.0), np.where(is_kept, classes, NONE)
    boxes = np.where(is_kept[..., None], boxes, 0.0)
    order = np.lexsort((*(boxes[..., index] for index in range(4)), classes, -scores), axis=-1)[:, :most]
    return Detections(
        np.take_along_axis(boxes, order[..., None], axis=1),
        np.take_along_axis(classes, order, axis=1),
        np.take_along_axis(scores, order, axis=1),
    )


def suppressed(found: Detections, most_iou: float) -> Detections:
    """Return the detections without those that overlap a better one of their class by more than ``most_iou``, 0..1."""
    is_kept = found.classes != NONE
    rows = found.classes.shape[1]
    for start in range(0, len(is_kept), _CHUNK):
        part = slice(start, start + _CHUNK)
        boxes, classes, kept = found.boxes[part], found.classes[part], is_kept[part]
        overlaps = (iou(boxes, boxes) > most_iou) & (classes[:, :, None] == classes[:, None])
        for rank in range(rows - 1):
            kept[:, rank + 1 :] &= ~(overlaps[:, rank, rank + 1 :] & kept[:, rank, None])
    return sorted_detections(found.boxes, np.where(is_kept, found.classes, NONE), found.scores, MOST)
