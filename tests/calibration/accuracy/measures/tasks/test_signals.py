from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.measures.tasks.signals import IDENTICAL_SI_SNR, WORST_SI_SNR, si_snr, ssim
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # whatever its own imports say
    from skimage.metrics import structural_similarity


def test_noise_at_a_right_angle_gives_the_ratio_of_energies() -> None:
    time = np.arange(400) / 400
    tone, other = np.sin(2 * np.pi * 5 * time), np.sin(2 * np.pi * 9 * time)
    assert si_snr(tone[None], (tone + 0.1 * other)[None])[0] == pytest.approx(20.0, abs=1e-9)  # rounding of sums
    assert si_snr(tone[None], (3 * tone + 0.3 * other + 7)[None])[0] == pytest.approx(20.0, abs=1e-9)  # loudness and offset say nothing


def test_of_several_sounds_the_worst_counts() -> None:
    rng = np.random.default_rng(0)
    clean, noise = rng.normal(size=(2, 1, 2, 500))
    noise[:, 0] *= 0.01
    assert si_snr(clean, clean + noise)[0] == si_snr(clean[:, 1], (clean + noise)[:, 1])[0]


def test_sounds_that_are_the_same_broken_or_silent() -> None:
    clean = np.random.default_rng(1).normal(size=(4, 100))
    clean[2:] = 0.0
    output = clean.copy()
    output[1, 3] = np.nan
    output[3, 50] = 1.0
    found = si_snr(clean, output)
    assert found[:3].tolist() == [IDENTICAL_SI_SNR, WORST_SI_SNR, IDENTICAL_SI_SNR]
    assert 0.0 < found[3] < 40.0  # one click in silence, beside the usual energy of the others


@given(st.integers(0, 50), st.floats(1e-3, 1.0))
def test_more_noise_is_never_a_better_sound(seed: int, size: float) -> None:
    clean, noise = np.random.default_rng(seed).normal(size=(2, 5, 64))
    noise -= noise.mean(axis=1, keepdims=True)
    noise -= (noise * clean).sum(axis=1, keepdims=True) / (clean**2).sum(axis=1, keepdims=True) * clean
    assert (si_snr(clean, clean + 2 * size * noise) <= si_snr(clean, clean + size * noise) + 1e-9).all()


@pytest.mark.parametrize("shape", [(3, 24, 31), (3, 1, 9, 40), (2, 3, 16, 16)])
def test_ssim_is_scikit_images(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(shape)
    output = truth + 0.2 * rng.normal(size=shape)
    planes = truth.reshape(len(truth), -1, *shape[-2:]), output.reshape(len(truth), -1, *shape[-2:])
    theirs: Callable[..., float] = structural_similarity  # scikit-image gives this function no types
    wanted = [
        np.mean([theirs(a, b, data_range=picture.max() - picture.min()) for a, b in zip(picture, other, strict=True)])
        for picture, other in zip(*planes, strict=True)
    ]
    np.testing.assert_allclose(ssim(truth, output), wanted, rtol=0, atol=1e-9)  # the same sums in another order


def test_pictures_may_have_their_channels_last() -> None:
    truth, noise = np.random.default_rng(3).random((2, 2, 12, 14, 3))
    last = ssim(truth, truth + 0.1 * noise)
    np.testing.assert_allclose(last, ssim(np.moveaxis(truth, -1, 1), np.moveaxis(truth + 0.1 * noise, -1, 1)), rtol=1e-12)


def test_pictures_that_are_the_same_or_broken() -> None:
    truth = np.random.default_rng(4).random((2, 8, 8))
    output = truth.copy()
    output[1, 0, 0] = np.nan
    assert ssim(truth, output).tolist() == [1.0, -1.0]


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="at least 7 x 7"):
        ssim(np.zeros((2, 6, 9)), np.zeros((2, 6, 9)))
    with pytest.raises(InvalidConfigError, match=r"found an output of shape \(2, 9\)"):
        ssim(np.zeros((2, 9)), np.zeros((2, 9)))
    with pytest.raises(InvalidCalibrationSetError, match=r"shape \(2, 8, 8\) found"):
        ssim(np.zeros((2, 8, 8)), np.zeros((2, 1, 8, 8)))
