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
from calibration.accuracy.kinds.part import FEW, LEAST_UNIT, ROUNDING, Array, Booleans, Doubles, Part
from calibration.accuracy.measures.sample_blocks import by_sample, sample_slices
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
    has_signs = evidence.is_single and evidence.has_both_signs
    return (Part(OutputKind.REGRESSION, axis, places, tuple(map(float, part.spread(evidence.values))), has_signs),)


def column_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return 1 less the root mean square change of the worst column of each sample, in units of what the column spans; 0..1."""
    span = _span(part, reference)

    def of_samples(some_reference: Array, some_output: Array) -> Doubles:
        r, x = part.in_columns(some_reference), part.in_columns(some_output)
        with np.errstate(invalid="ignore"):
            change = np.where(r == x, 0.0, (x - r) / span)
        square = np.nan_to_num(np.minimum(change**2, 1.0), nan=1.0).mean(axis=1)
        worst = square.max(axis=-1) if square.shape[-1] <= FEW else square.mean(axis=-1)
        found = 1.0 - np.sqrt(worst)
        if part.judges_change:
            found[((r >= 0) != (x >= 0)).any(axis=(1, 2))] = 0.0
        return np.asarray(found, dtype=np.float64)

    return by_sample(of_samples, reference, output)


def _span(part: Part, reference: Array) -> Doubles:
    """Return what the values of each column span over the data, (columns,), above 0."""
    low, high = np.full((), np.inf), np.full((), -np.inf)
    for some in sample_slices(reference):
        columns = part.in_columns(reference[some])
        is_known = np.isfinite(columns)
        low = np.minimum(low, columns.min(axis=(0, 1), where=is_known, initial=np.inf))
        high = np.maximum(high, columns.max(axis=(0, 1), where=is_known, initial=-np.inf))
    is_known = low <= high
    span, own = np.where(is_known, high - low, 0.0), np.where(is_known, np.maximum(np.abs(low), np.abs(high)), 0.0)
    largest = float(span.max(initial=0.0))
    span = np.where(span <= ROUNDING * own, own, span)  # a constant column: what its values are, not how they round
    return np.asarray(np.maximum(span, LEAST_UNIT * largest) if largest > 0 else np.maximum(span, 1.0), dtype=np.float64)
