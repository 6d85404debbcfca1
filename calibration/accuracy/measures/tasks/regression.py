r"""Errors of values in units of the spread that the truth has over the samples: of prices, ages, depths, key points.

With t the truth and x the output, and the spread s of each value of a sample its standard deviation over the samples,

    regression:  1 - sqrt(mean_k ((x_k - t_k) / s_k)^2)     one less the error in spreads (1 - NRMSE of the sample)
    r2:          1 - mean_k ((x_k - t_k) / s_k)^2           whose mean over the samples is the coefficient of determination R^2

A value that is the same in all samples has no spread: what it spans over the others of the sample, or its own size, is its unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.values import as_rows
from calibration.errors import InvalidCalibrationSetError

WORST = -1e6  # the score of a sample that is not finite: finite itself, so that means and JSON stay so


def regression(truth: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return 1 less the error of each sample in spreads of the truth, (samples,), at most 1.

    Args:
        truth: (samples, ...), the labels or the float model's output.
        output: As many values a sample.

    Raises:
        InvalidCalibrationSetError: The labels are of another form than the output.
    """
    return np.asarray(1.0 - np.sqrt(1.0 - r2(truth, output)), dtype=np.float64)


def r2(truth: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return 1 less the mean squared error of each sample in spreads of the truth, (samples,); their mean is R^2.

    Args:
        truth: (samples, ...), the labels or the float model's output.
        output: As many values a sample.

    Raises:
        InvalidCalibrationSetError: The labels are of another form than the output.
    """
    t, x = as_rows(truth).astype(np.float64), as_rows(output).astype(np.float64)
    if t.shape != x.shape:
        raise InvalidCalibrationSetError(
            f"labels: shape {truth.shape} found, {output.shape} expected: a number for each value of the model's output",
            fix="Give the wanted values in the form of the output, samples first.",
        )
    if not np.isfinite(t).all():
        raise InvalidCalibrationSetError(
            "labels: NaN or infinities found, finite numbers expected", fix="Remove the samples whose value is not known."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        square = np.mean(((x - t) / spread_of(t)) ** 2, axis=1)
    return np.asarray(np.maximum(1.0 - np.where(np.isnan(square), np.inf, square), WORST), dtype=np.float64)


def column_changes(truth: NDArray[np.generic], reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return what changed in each value of a sample, (values, 3), all at least 0.

    The columns are the root mean squared error of the float model and of the engine, both in spreads of the truth, and the largest change
    of the value on a sample, in its own unit; infinite where an output is not finite.

    Args:
        truth: (samples, ...), the labels or the float model's output.
        reference: The float model's, as many values a sample.
        output: The engine's.
    """
    t, r, x = (as_rows(values).astype(np.float64) for values in (truth, reference, output))
    spread = spread_of(t)
    with np.errstate(over="ignore", invalid="ignore"):
        errors = [np.sqrt(np.mean(((values - t) / spread) ** 2, axis=0)) for values in (r, x)]
        change = np.abs(np.where(r == x, 0.0, x - r)).max(axis=0)
    found = np.stack([*errors, change], axis=1)
    return np.asarray(np.where(np.isnan(found), np.inf, found), dtype=np.float64)


def spread_of(truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the spread of each value of a sample over the samples, (values,), above 0.

    Args:
        truth: (samples, values).
    """
    deviation = truth.std(axis=0)
    is_still = deviation <= 1e-12 * np.abs(truth).max(axis=0, initial=0.0)
    own = np.abs(truth).mean(axis=0)
    usual = float(deviation[~is_still].mean()) if not is_still.all() else 0.0
    return np.asarray(np.where(is_still, usual or np.where(own > 0, own, 1.0), deviation), dtype=np.float64)
