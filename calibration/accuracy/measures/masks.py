"""Which values of an output are a mask, not something that the model computed: they say nothing of how well an engine computes.

1. Infinities, and the end of float32's range, which counts as one (``calibration.nonfinite``).
2. A *level*: a value that several have to within LIKE, of 1e4 or more and at least a hundred times as large as every other, as -1e9 is or
   FP16's lowest value. Beside a few of these the norm of all other values is nothing, and every engine would be perfect.

A masked value that an engine has too, a level to within a hundredth, is left out of every measure. Where it has another there, the
difference counts as that of any two values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def mask_of(reference: Doubles) -> OutputMask | None:
    """Return what is masked in an output of the float model, any shape, or None where nothing is.

    Args:
        reference: With far values as infinities; without NaN.
    """
    if not reference.size or max(-float(reference.min()), float(reference.max())) < LEAST:
        return None
    is_finite = np.isfinite(reference)
    size = np.where(is_finite, np.abs(reference), 0.0)
    at = int(size.argmax())
    level = float(reference.reshape(-1)[at])
    near = is_finite & (np.abs(np.where(is_finite, reference, 0.0) - level) <= LIKE * abs(level))
    others = float(size.max(where=~near, initial=0.0))
    if abs(level) < LEAST or abs(level) < APART * others or np.count_nonzero(near) == 1 or not (~near & is_finite).any():
        return None if is_finite.all() else OutputMask(reference, ~is_finite, None)
    return OutputMask(reference, ~is_finite | near, level)
