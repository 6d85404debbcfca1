r"""Regressions, boxes, keypoints: columns of numbers in units of their own.

Evidence: a name, or columns beside scores in one output (``mixed.py``); a linear layer may end such a head as well as classes. Of a sample
with d the change and span what the float model's values of a column span over the data: 1 - max over the columns of rms(d) / span, the root
mean square over columns and rows together where there are many. The span of a column that is constant up to rounding is its own size. One
value a sample that lies on both sides of zero may be the logit of a decision: a change of its sign counts. Probes take d^2 in units of the
spread.
"""

from __future__ import annotations

import numpy as np

from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.part import FEW, LEAST_UNIT, ROUNDING, Array, Booleans, Doubles, Part, spread_of
from calibration.accuracy.metrics import OutputKind

NAMES = (
    "box",
    "bbox",
    "rect",
    "landmark",
    "ldmk",
    "lmk",
    "kpt",
    "kps",
    "keypoint",
    "joint",
    "pose",
    "coord",
    "offset",
    "reg",
    "delta",
    "loc",
)


def column_parts(evidence: Evidence, places: tuple[int, ...] = (), axis: int | None = None) -> tuple[Part, ...]:
    """Return the part of an output that holds columns: all of it, or some places of an axis."""
    axis = axis if axis is not None else evidence.column_axis
    part = Part(OutputKind.REGRESSION, axis, places)
    known = evidence.finite
    has_signs = bool(evidence.is_single and known.size and known.min() < 0 < known.max())
    return (Part(OutputKind.REGRESSION, axis, places, tuple(map(float, spread_of(part.in_columns(evidence.values)))), has_signs),)


def column_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return 1 less the root mean square change of the worst column of each sample, in units of what the column spans; 0..1."""
    r, x = part.in_columns(reference), part.in_columns(output)
    known = np.where(np.isfinite(r), r, np.nan)
    with np.errstate(all="ignore"):
        span = np.nan_to_num(known.max(axis=(0, 1)) - known.min(axis=(0, 1)))
    largest = float(span.max(initial=0.0))
    own = np.nan_to_num(np.abs(known).max(axis=(0, 1)))
    span = np.where(span <= ROUNDING * own, own, span)  # a constant column: what its values are, not how they round
    span = np.maximum(span, LEAST_UNIT * largest) if largest > 0 else np.maximum(span, 1.0)
    with np.errstate(invalid="ignore"):
        change = np.where(r == x, 0.0, (x - r) / span)
    square = np.nan_to_num(np.minimum(change**2, 1.0), nan=1.0).mean(axis=1)
    worst = square.max(axis=-1) if square.shape[-1] <= FEW else square.mean(axis=-1)
    found = 1.0 - np.sqrt(worst)
    if part.judges_change:
        found[((r >= 0) != (x >= 0)).any(axis=(1, 2))] = 0.0
    return np.asarray(found, dtype=np.float64)
