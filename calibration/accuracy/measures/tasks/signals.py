r"""How near sounds and pictures are to what they should be: SI-SNR of sounds, SSIM of pictures (PSNR is in ``measures/values.py``).

SI-SNR, with the means of truth t and output x taken off (Le Roux et al., "SDR - half-baked or well done?", 2019): the output's share along
the truth is signal whatever its size, the rest is noise,

    s = (<x, t> / ||t||^2) t,    SI-SNR = 10 log10(||s||^2 / ||x - s||^2) decibels.

SSIM (Wang et al., 2004), with the means m, variances v and covariance c in windows of 7 x 7 and L the span of the truth's values,

    SSIM = mean of (2 m_t m_x + (0.01 L)^2) (2 c + (0.03 L)^2) / ((m_t^2 + m_x^2 + (0.01 L)^2) (v_t + v_x + (0.03 L)^2)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.values import IDENTICAL_PSNR
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError
from calibration.process.lazy_import import deferred

ndimage = deferred("scipy.ndimage")

IDENTICAL_SI_SNR = IDENTICAL_PSNR  # decibels given to sounds that float32 cannot tell apart
WORST_SI_SNR = -IDENTICAL_SI_SNR
WINDOW = 7
MOST_CHANNELS = 4  # of a picture whose channels come last

Array = NDArray[np.generic]
Doubles = NDArray[np.float64]


def si_snr(reference: Array, output: Array) -> Doubles:
    """Return the scale-invariant signal-to-noise ratio of each sample in decibels, (samples,): of several sounds in one, the worst.

    A silent reference has no direction: the output's energy is then noise beside the usual energy of the others.

    Args:
        reference: (samples, ..., time), the float model's.
        output: The same shape.
    """
    r, x = (np.asarray(array, dtype=np.float64).reshape(len(array), -1, array.shape[-1]) for array in (reference, output))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        r, x = r - r.mean(axis=2, keepdims=True), x - x.mean(axis=2, keepdims=True)
        energy = np.einsum("ijk,ijk->ij", r, r)
        usual = float(energy[energy > 0].mean()) if (energy > 0).any() else 1.0
        along = np.einsum("ijk,ijk->ij", x, r) / np.where(energy > 0, energy, 1.0)
        noise = x - along[..., None] * r
        signal = np.where(energy > 0, along**2 * energy, usual)
        ratio = 10.0 * np.log10(signal / np.einsum("ijk,ijk->ij", noise, noise))
    ratio[np.all(r == x, axis=2)] = IDENTICAL_SI_SNR
    ratio = np.nan_to_num(ratio, nan=WORST_SI_SNR, posinf=IDENTICAL_SI_SNR, neginf=WORST_SI_SNR)
    return np.asarray(np.clip(ratio, WORST_SI_SNR, IDENTICAL_SI_SNR).min(axis=1), dtype=np.float64)


def ssim(truth: Array, output: Array) -> Doubles:
    """Return the mean structural similarity of each picture, (samples,), -1..1: over its channels.

    Args:
        truth: (samples, ..., height, width), or (samples, height, width, channels) of at most MOST_CHANNELS; the labels or the float
            model's.
        output: The same shape.

    Raises:
        InvalidConfigError: The pictures are smaller than a window.
        InvalidCalibrationSetError: The labels are of another form than the output.
    """
    if truth.shape != output.shape:
        raise InvalidCalibrationSetError(
            f"labels: shape {truth.shape} found, {output.shape} expected: the wanted picture for each of the model's",
            fix="Give pictures in the form of the model's output, samples first.",
        )
    t, x = _planes(truth), _planes(output)
    if min(t.shape[2:]) < WINDOW:
        raise InvalidConfigError(
            f"accuracy.metric: ssim needs pictures of at least {WINDOW} x {WINDOW}, found an output of shape {truth.shape}",
            fix="Choose psnr (accuracy.min_psnr) or cosine.",
        )
    return np.array([_of_picture(mine, theirs) for mine, theirs in zip(t, x, strict=True)])


def _of_picture(t: Doubles, x: Doubles) -> float:
    """Return the SSIM of one picture, (channels, height, width)."""
    if not np.isfinite(x).all():
        return -1.0
    if bool((t == x).all()):
        return 1.0
    span = float(t.max() - t.min()) or float(np.abs(t).max()) or 1.0
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    pairs = np.stack([t, x, t * t, x * x, t * x])
    edge = WINDOW // 2
    inner = ndimage.uniform_filter(pairs, size=(1, 1, WINDOW, WINDOW))[..., edge:-edge, edge:-edge]  # windows inside the picture
    mean_t, mean_x = inner[0], inner[1]
    var_t, var_x = unbiased * (inner[2] - mean_t**2), unbiased * (inner[3] - mean_x**2)
    both = unbiased * (inner[4] - mean_t * mean_x)
    value = (2 * mean_t * mean_x + c1) * (2 * both + c2) / ((mean_t**2 + mean_x**2 + c1) * (var_t + var_x + c2))
    return float(np.clip(value.mean(), -1.0, 1.0))


def _planes(values: Array) -> Doubles:
    """Return pictures as (samples, channels, height, width)."""
    if values.ndim < 3:
        raise InvalidConfigError(
            f"accuracy.metric: ssim needs pictures, (samples, channels, height, width), found an output of shape {values.shape}",
            fix="Choose another metric, such as cosine or r2.",
        )
    planes = np.asarray(values, dtype=np.float64)
    if values.ndim == 4 and values.shape[-1] <= MOST_CHANNELS < values.shape[1]:
        planes = np.moveaxis(planes, -1, 1)
    return planes.reshape(len(planes), -1, *planes.shape[-2:])
