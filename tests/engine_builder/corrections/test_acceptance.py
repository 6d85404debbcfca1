from __future__ import annotations

import numpy as np
import pytest

from engine_builder.corrections.acceptance import gain_of


def test_a_gain_is_the_paired_difference_with_its_standard_error() -> None:
    before, after = np.array([1.0, 2.0, 3.0, 6.0]), np.array([0.5, 1.5, 1.5, 4.5])
    gain = gain_of(before, after)
    assert (gain.before, gain.after, gain.samples) == (3.0, 2.0, 4)
    assert gain.error == pytest.approx(np.std([0.5, 0.5, 1.5, 1.5], ddof=1) / 2)
    assert gain.beyond_noise
    assert not gain.loss_beyond_noise


def test_a_difference_within_two_standard_errors_is_noise_either_way() -> None:
    values = np.array([1.0, 3.0])
    gain = gain_of(values, values[::-1])
    assert gain.error > 0
    assert not gain.beyond_noise
    assert not gain.loss_beyond_noise


def test_a_rise_beyond_noise_is_a_loss_and_no_gain() -> None:
    gain = gain_of(np.array([1.0, 1.1, 0.9]), np.array([2.0, 2.1, 1.9]))
    assert gain.loss_beyond_noise
    assert not gain.beyond_noise


def test_one_sample_proves_nothing() -> None:
    gain = gain_of(np.array([4.0]), np.array([1.0]))
    assert gain.error == 3.0
    assert not gain.beyond_noise


def test_few_samples_say_enough_of_what_is_far_better_or_somewhat_worse() -> None:
    noise = np.array([-1.0, 1.0] * 8)  # a standard error of about a quarter
    assert gain_of(np.full(16, 1.0) + noise, np.zeros(16)).is_clear
    assert not gain_of(np.full(8, 1.0) + noise[:8] / 2, np.zeros(8)).is_clear  # as far, on too few samples
    assert not gain_of(np.full(16, 0.6) + noise, np.zeros(16)).is_clear
    assert not gain_of(np.full(16, -0.2) + noise, np.zeros(16)).is_clear
    assert gain_of(np.full(16, -0.4) + noise, np.zeros(16)).is_clear
