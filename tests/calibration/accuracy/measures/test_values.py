from __future__ import annotations

import numpy as np
import pytest

from calibration.accuracy.measures.values import IDENTICAL_PSNR, closeness, cosine, nmse, psnr


def test_nmse_is_the_squared_error_over_the_squared_norm() -> None:
    assert nmse(np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[3.0, 5.0], [0.0, 2.0]])).tolist() == [1 / 25, 0]


def test_nmse_of_a_zero_reference_is_measured_against_the_others() -> None:
    assert nmse(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [2.0, 0.0]])).tolist() == [1 / 4, 0]
    assert nmse(np.zeros((2, 3)), np.zeros((2, 3))).tolist() == [0, 0]


def test_infinities_that_agree_are_no_error() -> None:
    values = np.array([[1.0, -np.inf, 2.0]])
    assert nmse(values, values).tolist() == [0]
    assert cosine(values, values).tolist() == [1]


def test_psnr_of_an_error_of_a_tenth_of_the_peak_is_20_decibels() -> None:
    reference = np.array([[0.0, 1.0, 0.5, 0.25]])
    assert psnr(reference, reference + 0.1) == pytest.approx([20.0])
    assert psnr(reference, reference).tolist() == [IDENTICAL_PSNR]


def test_cosine_of_opposite_orthogonal_and_zero_vectors() -> None:
    reference = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    output = np.array([[-2.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    assert cosine(reference, output).tolist() == [-1, 0, 1, 0]


def test_cosine_of_identical_vectors_is_exactly_one() -> None:
    values = np.random.default_rng(0).normal(size=(100, 33)).astype(np.float32)
    assert (cosine(values, values) == 1).all()


def test_closeness_of_scores_is_one_less_the_largest_change_of_each_sample() -> None:
    reference = np.array([[0.1, 0.9], [0.2, 0.4]])
    output = np.array([[0.15, 0.9], [0.2, 0.38]])
    np.testing.assert_allclose(closeness(reference, output), [0.95, 0.98])


def test_a_score_on_the_other_side_of_a_half_is_as_far_as_can_be() -> None:
    np.testing.assert_array_equal(closeness(np.array([[0.501], [0.9]]), np.array([[0.499], [0.9]])), [0.0, 1.0])


def test_closeness_of_other_values_is_in_units_of_their_span_over_all_samples() -> None:
    np.testing.assert_allclose(closeness(np.array([100.0, 300.0, 200.0]), np.array([100.0, 301.0, 200.0])), [1.0, 0.995, 1.0])


def test_a_constant_value_that_moves_is_measured_against_itself() -> None:
    np.testing.assert_allclose(closeness(np.array([-5.0, -5.0]), np.array([-5.0, -4.5])), [1.0, 0.9])


def test_closeness_of_what_is_not_finite_is_none() -> None:
    np.testing.assert_array_equal(closeness(np.array([0.2, 0.3, 0.4]), np.array([np.nan, np.inf, 0.4])), [0.0, 0.0, 1.0])
