from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.measures.tasks.regression import WORST, column_changes, r2, regression
from calibration.errors import InvalidCalibrationSetError


def test_the_mean_of_r2_is_the_coefficient_of_determination() -> None:
    rng = np.random.default_rng(0)
    truth, output = rng.normal(3.0, [1.0, 50.0], (400, 2)), rng.normal(3.0, [1.0, 50.0], (400, 2))
    residual, total = ((truth - output) ** 2).sum(axis=0), ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    assert r2(truth, output).mean() == pytest.approx((1 - residual / total).mean(), rel=1e-12)  # rounding of sums


def test_an_error_of_one_spread_costs_all() -> None:
    truth = np.array([-1.0, 1.0, -1.0, 1.0])
    assert regression(truth, truth + np.array([0.0, 0.1, -0.5, 1.0])).tolist() == pytest.approx([1.0, 0.9, 0.5, 0.0], abs=1e-12)


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.integers(0, 100))
def test_units_and_offsets_of_the_data_change_nothing(scale: float, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, output = rng.normal(size=(2, 30, 3))
    moved = regression(scale * truth + offset, scale * output + offset)
    np.testing.assert_allclose(moved, regression(truth, output), rtol=1e-6, atol=1e-6)  # offset / scale of 1e6 costs six digits


@given(st.floats(0.0, 3.0), st.integers(0, 100))
def test_more_damage_scores_no_more(size: float, seed: int) -> None:
    truth, noise = np.random.default_rng(seed).normal(size=(2, 20, 2))
    assert (regression(truth, truth + 2 * size * noise) <= regression(truth, truth + size * noise)).all()
    assert (regression(truth, truth) == 1.0).all()


def test_a_value_that_never_changes_takes_the_unit_of_the_others() -> None:
    truth = np.array([[5.0, -1.0], [5.0, 1.0]])
    assert r2(truth, truth + np.array([1.0, 0.0])).tolist() == [0.5, 0.5]
    assert r2(np.full(3, 4.0), np.array([4.0, 8.0, 2.0])).tolist() == [1.0, 0.0, 0.75]


def test_a_broken_sample_scores_worst() -> None:
    assert r2(np.array([1.0, 2.0]), np.array([np.nan, np.inf])).tolist() == [WORST, WORST]


def test_labels_of_another_form_are_refused() -> None:
    with pytest.raises(InvalidCalibrationSetError, match=r"shape \(3, 2\) found, \(3, 1\) expected"):
        regression(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(InvalidCalibrationSetError, match="NaN or infinities found"):
        r2(np.array([1.0, np.nan]), np.zeros(2))


def test_what_changed_in_each_column_is_told_apart() -> None:
    truth = np.array([[0.0, 10.0], [2.0, 30.0]])  # spreads 1 and 10
    reference, output = (truth + np.array([[0.0, second], [0.5, 0.0]]) for second in (0.0, 5.0))
    expected = [[0.5 / np.sqrt(2), 0.5 / np.sqrt(2), 0.0], [0.0, 0.5 / np.sqrt(2), 5.0]]
    assert column_changes(truth, reference, output) == pytest.approx(np.array(expected), rel=1e-12)  # a sum of two values


def test_a_column_that_is_not_finite_has_no_end() -> None:
    truth = np.array([[0.0, 1.0], [2.0, 3.0]])
    found = column_changes(truth, truth, np.where(truth == 3.0, np.nan, truth))
    assert np.isinf(found[1, 1:]).all()
    assert (found[0] == 0.0).all()
