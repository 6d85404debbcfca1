from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.accuracy.measures.tasks.decisions import decisions, labelled_decisions, largest_change
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError


def test_a_sample_scores_the_share_of_its_decisions_that_stay() -> None:
    reference = np.array([[0.1, 0.5, 0.9, 0.4], [0.6, 0.7, 0.2, 0.1]])
    output = np.array([[0.2, 0.49, 0.6, 0.3], [0.9, 0.5, 0.4, 0.0]])
    assert decisions(reference, output).tolist() == [0.75, 1.0]
    assert decisions(reference, output, threshold=0.35).tolist() == [0.75, 0.75]


def test_one_score_a_sample_is_right_or_wrong() -> None:
    assert decisions(np.array([[0.4], [0.6]]), np.array([[0.6], [0.7]])).tolist() == [0.0, 1.0]


def test_a_score_that_is_no_number_is_no_decision_at_all() -> None:
    assert decisions(np.array([[0.1], [0.9]]), np.array([[np.nan], [np.nan]])).tolist() == [0.0, 0.0]


def test_logits_need_a_threshold() -> None:
    logits = np.array([[-3.0], [2.0]])
    with pytest.raises(InvalidConfigError, match="found values from -3 to 2") as caught:
        decisions(logits, logits)
    assert "accuracy.measure.threshold (0 for logits)" in str(caught.value.fix)
    assert decisions(logits, logits + 2.5, threshold=0.0).tolist() == [1.0, 1.0]


@given(st.floats(0, 0.4), st.integers(0, 1000))
def test_more_damage_changes_no_fewer_decisions(step: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, direction = rng.random((20, 3)), rng.normal(size=(20, 3))
    less, more = (decisions(reference, reference + size * direction) for size in (step, 2 * step))
    assert (more <= less).all()
    assert (decisions(reference, reference) == 1.0).all()


def test_the_largest_change_is_told_on_either_side_of_the_threshold() -> None:
    assert largest_change(np.array([[0.1, 0.9]]), np.array([[0.4, 0.85]])) == pytest.approx(0.3, abs=1e-15)
    assert largest_change(np.array([[np.inf]]), np.array([[np.inf]])) == 0.0
    assert largest_change(np.array([[0.5]]), np.array([[np.nan]])) == np.inf


def test_labels_say_which_decisions_are_right() -> None:
    scores = np.array([[0.9], [0.2], [np.nan], [0.5]])
    assert labelled_decisions(np.array([1, 1, 0, 1]), np.nan_to_num(scores), scores).tolist() == [1.0, 0.0, 0.0, 1.0]
    logits = np.array([[2.0, -1.0], [0.5, 0.1]])
    assert labelled_decisions(np.array([[1, 0], [0, 1]]), logits, logits, 0.0).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("labels", [np.array([1, 0, 2, 1]), np.ones((4, 2))])
def test_labels_of_another_form_are_refused(labels: NDArray[np.generic]) -> None:
    with pytest.raises(InvalidCalibrationSetError, match="of 0 and 1 expected"):
        labelled_decisions(labels, np.full((4, 1), 0.3), np.full((4, 1), 0.3))
