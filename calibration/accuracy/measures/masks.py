"""Which values of an output are a mask, not something that the model computed: they say nothing of how well an engine computes.

1. Infinities, and the end of float32's range, which counts as one (``calibration.nonfinite``).
2. A *level*: a value that several have to within LIKE, of 1e4 or more and at least a hundred times as large as every other, as -1e9 is or
   FP16's lowest value. Beside a few of these the norm of all other values is nothing, and every engine would be perfect.

A masked value that an engine has too, a level to within a hundredth, is left out of every measure. Where it has another there, the
difference counts as that of any two values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.sample_blocks import Array, doubles, sample_slices

Doubles = NDArray[np.float64]
Booleans = NDArray[np.bool_]

LEAST, APART = 1e4, 100.0  # magnitude of a level, and how many times as large as the others it is
LIKE, LIKE_IN_ENGINE = 1e-3, 1e-2  # relative


@dataclass(frozen=True, slots=True, eq=False)
class OutputMask:
    """What is masked in one output of the float model."""

    reference: Doubles
    hidden: Booleans  # of the reference's shape
    level: float | None

    def alike(self, output: Doubles) -> Booleans:
        """Return which values, of the reference's shape, the output masks as the reference does."""
        same = np.isinf(self.reference) & (self.reference == output)
        if self.level is not None:
            with np.errstate(invalid="ignore"):
                same |= self.hidden & (np.abs(output - self.level) <= LIKE_IN_ENGINE * abs(self.level))
        return np.asarray(same)


@dataclass(frozen=True, slots=True)
class Masking:
    """What masks an output of the float model, told of all its samples: infinities, and a level where there is one."""

    level: float | None

    def of(self, reference: Doubles) -> OutputMask:
        """Return what is masked in some of the samples, any shape, far values as infinities."""
        hidden = ~np.isfinite(reference)
        return OutputMask(reference, hidden if self.level is None else hidden | _is_near(reference, self.level), self.level)


def masking_of(reference: Array, columns: Callable[[Array], Doubles] = doubles) -> Masking | None:
    """Return what masks an output of the float model, or None where nothing does; few samples are in float64 at a time.

    Args:
        reference: (samples, ...), without NaN.
        columns: Returns what is looked at of some samples, far values as infinities.
    """
    found = _Largest()
    for part in sample_slices(reference):
        found.see(columns(reference[part]))
    if found.size < LEAST and found.is_finite:
        return None
    near, others, has_others = 0, 0.0, False
    for part in sample_slices(reference):
        values = columns(reference[part])
        is_finite, is_near = np.isfinite(values), _is_near(values, found.value)
        near += int(np.count_nonzero(is_near))
        others = max(others, float(np.abs(values).max(where=is_finite & ~is_near, initial=0.0)))
        has_others = has_others or bool((is_finite & ~is_near).any())
    if found.size < LEAST or found.size < APART * others or near == 1 or not has_others:
        return None if found.is_finite else Masking(None)
    return Masking(found.value)


def mask_of(reference: Doubles) -> OutputMask | None:
    """Return what is masked in an output of the float model, any shape, or None where nothing is.

    Args:
        reference: With far values as infinities; without NaN.
    """
    masking = masking_of(reference, lambda values: np.asarray(values, dtype=np.float64))
    return None if masking is None else masking.of(reference)


class _Largest:
    """The first of the finite values of largest magnitude, block after block."""

    def __init__(self) -> None:
        self.value = 0.0
        self.is_finite = True  # all values so far

    @property
    def size(self) -> float:
        """Its magnitude."""
        return abs(self.value)

    def see(self, values: Doubles) -> None:
        """Take a block in."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            self.is_finite = False
            known = values[np.isfinite(values)]
        else:
            known = values.reshape(-1)
        if not known.size:
            return
        low, high = float(known.min()), float(known.max())
        if max(-low, high) > self.size:
            self.value = high if -low < high else low if -low > high else float(known[np.abs(known).argmax()])


def _is_near(values: Doubles, level: float) -> Booleans:
    """Return which values are a level, to within LIKE."""
    is_finite = np.isfinite(values)
    return np.asarray(is_finite & (np.abs(np.where(is_finite, values, 0.0) - level) <= LIKE * abs(level)))
