"""How far values are from the float model's: pure functions with one value per sample.

Divergence (0 is perfect), with r the reference and x the output of one sample:

    NMSE = ||x - r||^2 / ||r||^2

A sample with a NaN in it scores worst, so a broken engine can never look good. What is masked alike in both, as logits by -inf, is left out
(``masks.py``); where one alone is infinite the sample scores worst.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.masks import Masking, masking_of
from calibration.accuracy.measures.sample_blocks import by_sample, doubles, sample_slices

WORST_LOSS = 1e6  # the divergence of a sample that is not finite: finite itself, so that means and JSON stay so
IDENTICAL_PSNR = 150.0  # decibels given to outputs that float32 cannot tell apart (2^-24 of the peak is 144 dB)


def nmse(reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return ||output - reference||^2 / ||reference||^2 of each sample.

    A sample whose reference is all zero is measured against the mean norm of the others, and against 1 if all are zero.

    Args:
        reference: (samples, ...), the float model's.
        output: The same shape.

    Returns:
        (samples,) float64, 0 for identical values, at most WORST_LOSS.
    """
    masking = masking_of(reference)
    error = by_sample(lambda r, x: _squared_error(_rows(r), _rows(x), masking), reference, output)
    norm = by_sample(lambda r: _squared_norm(_rows(r), masking), reference)
    usual = float(norm[norm > 0].mean()) if (norm > 0).any() else 1.0
    return _finite_loss(error / np.where(norm > 0, norm, usual))


def psnr(reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each sample, in decibels, between 0 and IDENTICAL_PSNR.

    The peak is the span (highest - lowest value) of the sample's reference; a constant reference takes its magnitude, or 1 if zero.
    """
    masking = masking_of(reference)

    def of_samples(some_reference: NDArray[np.generic], some_output: NDArray[np.generic]) -> NDArray[np.float64]:
        r, x = _rows(some_reference), _rows(some_output)
        is_seen = np.ones(r.shape, dtype=np.bool_) if masking is None else ~masking.of(r).hidden
        highest = r.max(axis=1, where=is_seen, initial=-np.inf)
        span = highest - r.min(axis=1, where=is_seen, initial=np.inf)  # -inf where all is masked
        peak = np.where(span > 0, span, np.abs(highest))
        peak = np.where((peak > 0) & np.isfinite(peak), peak, 1.0)
        relative = _finite_loss(_squared_error(r, x, masking) / np.maximum(is_seen.sum(axis=1), 1) / peak**2)
        floor = 10.0 ** (-IDENTICAL_PSNR / 10)
        return np.asarray(np.clip(-10.0 * np.log10(np.maximum(relative, floor)), 0.0, IDENTICAL_PSNR), dtype=np.float64)

    return by_sample(of_samples, reference, output)


def cosine(reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the cosine of the angle between reference and output of each sample, in -1..1.

    Two zero vectors agree (1), one zero vector does not (0).
    """
    masking = masking_of(reference)

    def of_samples(some_reference: NDArray[np.generic], some_output: NDArray[np.generic]) -> NDArray[np.float64]:
        r, x = _rows(some_reference), _rows(some_output)
        if masking is not None:
            alike = masking.of(r).alike(x)
            r, x = np.where(alike, 0.0, r), np.where(alike, 0.0, x)
        with np.errstate(invalid="ignore"):
            norms = np.sqrt(np.einsum("ij,ij->i", r, r)) * np.sqrt(np.einsum("ij,ij->i", x, x))
            dots = np.einsum("ij,ij->i", r, x)
        is_finite = np.isfinite(norms) & np.isfinite(dots)
        values = np.divide(dots, norms, out=np.where(is_finite, 0.0, -1.0), where=is_finite & (norms > 0))
        values[np.all(r == x, axis=1)] = 1.0  # exactly, where rounding would leave 1 - 2^-53
        return np.asarray(np.clip(values, -1.0, 1.0), dtype=np.float64)

    return by_sample(of_samples, reference, output)


def closeness(reference: NDArray[np.generic], output: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return 1 less the largest change of a value of each sample, in units of what the reference spans over all samples; 0..1.

    Where all of the reference lies in 0..1, its values are scores: the unit is 1, and a sample of which one decision at 0.5 changes has 0.

    Args:
        reference: (samples, ...), the float model's, of all samples that are judged together.
        output: The same shape.
    """
    low, high = finite_span(reference)
    are_scores = low >= 0.0 and high <= 1.0
    unit = 1.0 if are_scores else high - low or abs(high)

    def of_samples(some_reference: NDArray[np.generic], some_output: NDArray[np.generic]) -> NDArray[np.float64]:
        r, x = _rows(some_reference), _rows(some_output)
        with np.errstate(invalid="ignore"):
            change = np.where(r == x, 0.0, np.abs(x - r) / unit)
        values = 1.0 - np.minimum(np.nan_to_num(change, nan=1.0), 1.0).max(axis=1, initial=0.0)
        if are_scores:
            values[((r >= 0.5) != (x >= 0.5)).any(axis=1)] = 0.0
        return np.asarray(values, dtype=np.float64)

    return by_sample(of_samples, reference, output)


def finite_span(values: NDArray[np.generic]) -> tuple[float, float]:
    """Return the lowest and the highest of the finite values, (samples, ...), far ones left out; 0 and 0 of none."""
    low, high = np.inf, -np.inf
    for part in sample_slices(values):
        wide = doubles(values[part])
        known = wide if np.isfinite(wide).all() else wide[np.isfinite(wide)]
        low, high = min(low, float(known.min(initial=np.inf))), max(high, float(known.max(initial=-np.inf)))
    return (low, high) if low <= high else (0.0, 0.0)


def as_rows(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the values as (samples, all the rest), of their own type."""
    return values.reshape(len(values), -1)


def _squared_error(r: NDArray[np.float64], x: NDArray[np.float64], masking: Masking | None) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        d = x - r
    if masking is not None:
        d[masking.of(r).alike(x)] = 0.0
    return np.asarray(np.einsum("ij,ij->i", d, d), dtype=np.float64)


def _squared_norm(r: NDArray[np.float64], masking: Masking | None) -> NDArray[np.float64]:
    kept = r if masking is None else np.where(masking.of(r).hidden, 0.0, r)
    return np.asarray(np.einsum("ij,ij->i", kept, kept), dtype=np.float64)


def _finite_loss(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.minimum(np.nan_to_num(values, nan=WORST_LOSS, posinf=WORST_LOSS), WORST_LOSS), dtype=np.float64)


def _rows(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the values as (samples, all the rest)."""
    return doubles(as_rows(values))
