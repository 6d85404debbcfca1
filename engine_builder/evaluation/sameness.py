"""Whether two runs of a model gave the same answer: equal up to rounding, since sums in another order differ a little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.accuracy.measures.sample_blocks import sample_slices
from calibration.data.sample_axes import Array

ROUNDING = 1e-3  # relative: float32 sums in another order differ by 1e-6 to 1e-5
OTHER_LABELS = 0.02  # share of whole numbers that rounding may change


def is_same(one: Array, other: Array, rounding: float = ROUNDING) -> bool:
    """Return whether two arrays are equal up to rounding; infinities and NaN count as numbers.

    Args:
        one: Of any shape and type of numbers.
        other: Of the same shape and type.
        rounding: Norm of the difference, relative to the larger norm, that is taken for rounding.
    """
    if one.dtype.kind != "f":
        return bool((one != other).mean() <= OTHER_LABELS) if one.size else True
    a, b = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    error, norm = np.linalg.norm(a[finite] - b[finite]), max(np.linalg.norm(a[finite]), np.linalg.norm(b[finite]))
    return bool(error <= rounding * norm)


def are_bitwise_equal(reference: Sequence[Array], outputs: Sequence[Array]) -> bool:
    """Return whether outputs are the float model's bit for bit, each (samples, ...)."""
    return all(
        one.dtype == other.dtype
        and one.shape == other.shape
        and all(one[some].tobytes() == other[some].tobytes() for some in sample_slices(one))
        for one, other in zip(reference, outputs, strict=True)
    )
