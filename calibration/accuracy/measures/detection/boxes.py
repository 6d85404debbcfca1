"""Boxes: their forms, which form some boxes can have, and how much two overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.options import BoxFormat

PLAUSIBLE = 0.9  # share of the boxes that must fit a form
_OUTSIDE = 0.05  # of the picture, by which a box may stick out
_BEYOND = 1.25  # of the largest number, to which a box may reach: the largest middle lies somewhat inside the picture

Doubles = NDArray[np.float64]


def corners_from(boxes: Doubles, form: BoxFormat) -> Doubles:
    """Return boxes (..., 4) as x1, y1, x2, y2."""
    a, b, c, d = (boxes[..., index] for index in range(4))
    with np.errstate(invalid="ignore", over="ignore"):
        if form is BoxFormat.CXCYWH:
            return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], axis=-1)
        if form is BoxFormat.X1Y1WH:
            return np.stack([a, b, a + c, b + d], axis=-1)
    return np.stack([b, a, d, c], axis=-1) if form is BoxFormat.Y1X1Y2X2 else boxes


def possible_formats(boxes: Doubles) -> tuple[BoxFormat, ...]:
    """Return which of x1y1x2y2 and cxcywh nearly all of these boxes can be: both where all lie so that either makes sense, maybe none.

    Rule 1. Corners: the second is right of and below the first.
    Rule 2. Middle and size: the size is not negative, and the box does not reach far out of 0 to about the largest number.

    Args:
        boxes: (..., 4), those of the float model; boxes of zeros, or of -1 throughout, are padding and say nothing.
    """
    rows = boxes.reshape(-1, 4)
    rows = rows[(rows != 0).any(axis=1) & (rows != -1).any(axis=1) & np.isfinite(rows).all(axis=1)]
    if not len(rows):
        return (BoxFormat.X1Y1X2Y2,)
    first, second = rows[:, :2], rows[:, 2:]
    are_corners = (second >= first).all(axis=1)
    extent = np.abs(rows).max()
    begin, end = first - second / 2, first + second / 2
    are_middles = ((second >= 0) & (begin >= -_OUTSIDE * extent) & (end <= _BEYOND * extent)).all(axis=1)
    found = ((BoxFormat.X1Y1X2Y2, are_corners), (BoxFormat.CXCYWH, are_middles))
    return tuple(form for form, fits in found if fits.mean() >= PLAUSIBLE)


def iou(first: Doubles, second: Doubles) -> Doubles:
    """Return the intersection over union of each pair, (n, a, b), 0..1: of boxes without an area 1 where they are equal, else 0.

    Args:
        first: (n, a, 4) corners.
        second: (n, b, 4) corners.
    """
    a, b = ([side[..., index] for index in range(4)] for side in (first[:, :, None], second[:, None]))  # planes: three times as fast
    with np.errstate(invalid="ignore", over="ignore"):
        width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
        height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
        both = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        union = _area(first)[:, :, None] + _area(second)[:, None] - both
        found = np.divide(both, union, out=np.zeros(both.shape), where=union > 0)
    found[~np.isfinite(found)] = 0.0
    found[(a[0] == b[0]) & (a[1] == b[1]) & (a[2] == b[2]) & (a[3] == b[3])] = 1.0
    return np.asarray(found, dtype=np.float64)


def _area(boxes: Doubles) -> Doubles:
    return np.asarray(np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0).prod(axis=-1), dtype=np.float64)
