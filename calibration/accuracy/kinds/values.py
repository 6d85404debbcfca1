r"""Values: pictures, sound, maps of depth, states, and whatever nothing else fits.

Judged by the squared error in units of the spread over the data, each channel in its own, 1 - ||d||^2 / (2 E||r - mean||^2), and
by the cosine of each sample unless it is next to silent (below QUIET of the usual norm), of which only the first is judged. Of few channels
the worst counts, of many their mean. Probes take ||d||^2 / ||r||^2, or the first where channels are of another scale than others.
"""

from __future__ import annotations

import numpy as np

from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.part import FEW, Array, Booleans, Doubles, Part
from calibration.accuracy.measures.sample_blocks import by_sample
from calibration.accuracy.measures.values import cosine
from calibration.accuracy.metrics import OutputKind

QUIET = 0.1
APART = 10.0  # how many times the spread of one channel the others' may be before each is taken in its own unit by probes


def value_parts(evidence: Evidence) -> tuple[Part, ...]:
    """Return the one part of values; with the units of its channels where these differ."""
    axis = evidence.column_axis
    part = Part(OutputKind.VALUES, axis)
    units = part.spread(evidence.values)
    if len(units) > FEW or units.max() < APART * units.min():
        return (Part(OutputKind.VALUES, axis),)
    return (Part(OutputKind.VALUES, axis, (), tuple(map(float, units))),)


def value_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return the lower of the cosine and of the score by the spread of each sample."""
    reference, output = without_uncounted(counted, reference, output)
    by_spread = spread_scores(part, reference, output, None)
    square = by_sample(_energy, reference)
    is_loud = square >= QUIET**2 * square.mean()
    return np.asarray(np.where(is_loud, np.minimum(cosine(reference, output), by_spread), by_spread), dtype=np.float64)


def without_uncounted(counted: Booleans | None, *outputs: Array) -> tuple[Array, ...]:
    """Return outputs, each (samples, positions, ...), with 0 in the positions that do not count."""
    if counted is None or outputs[0].ndim < 3 or outputs[0].shape[1] != counted.shape[1]:
        return outputs
    hidden = ~counted.reshape(*counted.shape, *(1,) * (outputs[0].ndim - 2))
    return tuple(np.where(hidden, np.zeros((), dtype=values.dtype), values) for values in outputs)


def _energy(values: Array) -> Doubles:
    """Return the squared norm of the finite values of each sample, (samples,)."""
    known = np.where(np.isfinite(values), np.asarray(values, dtype=np.float64), 0.0).reshape(len(values), -1)
    return np.asarray(np.einsum("ij,ij->i", known, known), dtype=np.float64)


def spread_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return 1 less half the squared error of each sample, in units of the spread over the data, at least -1."""
    units = part.spread(reference)

    def of_samples(some_reference: Array, some_output: Array) -> Doubles:
        r, x = part.in_columns(some_reference), part.in_columns(some_output)
        with np.errstate(invalid="ignore"):
            change = np.where(r == x, 0.0, (x - r) / units)
        square = np.nan_to_num(change**2, nan=4.0, posinf=4.0).mean(axis=1)
        worst = square.max(axis=-1) if square.shape[-1] <= FEW else square.mean(axis=-1)
        return np.asarray(np.clip(1.0 - worst / 2, -1.0, 1.0), dtype=np.float64)

    return by_sample(of_samples, reference, output)
