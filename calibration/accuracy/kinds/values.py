r"""Values: pictures, sound, maps of depth, states, and whatever nothing else fits.

Judged by the squared error in units of the spread over the data, each channel in its own, 1 - ||d||^2 / (2 E||r - mean||^2), and
by the cosine of each sample unless it is next to silent (below QUIET of the usual norm), of which only the first is judged. Of few channels
the worst counts, of many their mean. Probes take ||d||^2 / ||r||^2, or the first where channels are of another scale than others.
"""

from __future__ import annotations

import numpy as np

from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.part import FEW, Array, Booleans, Doubles, Part, spread_of
from calibration.accuracy.measures.values import cosine
from calibration.accuracy.metrics import OutputKind

QUIET = 0.1
APART = 10.0  # how many times the spread of one channel the others' may be before each is taken in its own unit by probes


def value_parts(evidence: Evidence) -> tuple[Part, ...]:
    """Return the one part of values; with the units of its channels where these differ."""
    axis = evidence.column_axis
    part = Part(OutputKind.VALUES, axis)
    units = spread_of(part.in_columns(evidence.values))
    if len(units) > FEW or units.max() < APART * units.min():
        return (Part(OutputKind.VALUES, axis),)
    return (Part(OutputKind.VALUES, axis, (), tuple(map(float, units))),)


def value_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return the lower of the cosine and of the score by the spread of each sample."""
    if counted is not None and reference.ndim > 2 and reference.shape[1] == counted.shape[1]:
        hidden = ~counted.reshape(*counted.shape, *(1,) * (reference.ndim - 2))
        reference, output = (np.where(hidden, 0.0, np.asarray(values, dtype=np.float64)) for values in (reference, output))
    by_spread = spread_scores(part, reference, output, None)
    known = np.where(np.isfinite(reference), np.asarray(reference, dtype=np.float64), 0.0).reshape(len(reference), -1)
    square = np.einsum("ij,ij->i", known, known)
    is_loud = square >= QUIET**2 * square.mean()
    return np.asarray(np.where(is_loud, np.minimum(cosine(reference, output), by_spread), by_spread), dtype=np.float64)


def spread_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return 1 less half the squared error of each sample, in units of the spread over the data, at least -1."""
    r, x = part.in_columns(reference), part.in_columns(output)
    units = spread_of(r)
    with np.errstate(invalid="ignore"):
        change = np.where(r == x, 0.0, (x - r) / units)
    square = np.nan_to_num(change**2, nan=4.0, posinf=4.0).mean(axis=1)
    worst = square.max(axis=-1) if square.shape[-1] <= FEW else square.mean(axis=-1)
    return np.asarray(np.clip(1.0 - worst / 2, -1.0, 1.0), dtype=np.float64)
