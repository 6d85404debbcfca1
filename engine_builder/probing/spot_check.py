"""Compares what one probe gave on CUDA with what it gives on the CPU.

Two providers add the same products in another order, so that a loss differs in its fourth digit or later. Kernels that are wrong, or a
driver that does not fit, give other losses. A probe's own standard error is what a loss may be off by without a word: more would say
something about the provider.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CalibrationError

LEAST_SHARE = 0.01  # of a mean loss, where it is alike on all samples or there is but one: what no order of layers turns on
NOTHING = 1e-9  # a loss so small is rounding of float32 itself


def check_alike(what: str, found: NDArray[np.float64], expected: NDArray[np.float64], least_share: float = LEAST_SHARE) -> None:
    """Accept what a probe gave.

    Args:
        what: The probe, in words.
        found: Its values on CUDA, (samples,) or (probes,).
        expected: The same on the CPU.
        least_share: Of the mean, that it may be off by in any case.

    Raises:
        CalibrationError: The means are further apart than the standard error of the one on the CPU.
    """
    if np.array_equal(found, expected, equal_nan=True):
        return
    mean, usual = float(found.mean()), float(expected.mean())
    are_numbers = bool(np.isfinite(expected).all())
    error = float(expected.std(ddof=1)) / math.sqrt(len(expected)) if are_numbers and len(expected) > 1 else 0.0
    most = max(error, least_share * abs(usual), NOTHING) if are_numbers else 0.0
    if not abs(mean - usual) <= most:  # so that NaN is refused too
        raise CalibrationError(
            f"CUDA gives other numbers than the CPU: {what} is {mean:.4g}, expected {usual:.4g} within {most:.2g}",
            fix="See whether this onnxruntime fits CUDA, cuDNN and the driver; probes on the CPU need none of them.",
        )
