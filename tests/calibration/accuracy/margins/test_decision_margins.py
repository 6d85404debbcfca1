from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.accuracy.margins.decision_margins import DecisionMargins, agreement_margins, label_margins, threshold_margins
from calibration.accuracy.measures.classes import agreement, topk

Scores = NDArray[np.float32]


def coarse(seed: int, n: int = 40, classes: int = 5) -> tuple[Scores, Scores, NDArray[np.int64]]:
    """Return scores on a grid, so that many are equal, an engine's, and labels."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(-3, 4, (n, classes)).astype(np.float32)
    engine = reference + rng.integers(-1, 2, (n, classes)).astype(np.float32)
    engine[0, 0], engine[1, 1] = np.nan, np.inf
    return reference, engine, rng.integers(0, classes, n)


@given(st.integers(0, 2**32 - 1))
def test_signs_of_agreement_margins_are_the_scores(seed: int) -> None:
    reference, engine, _ = coarse(seed)
    margins = agreement_margins(reference, engine)
    np.testing.assert_array_equal(margins.engine > 0, agreement(reference, engine) == 1.0)
    assert (margins.reference > 0).all()
    assert not margins.can_gain


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_signs_of_label_margins_are_the_scores(seed: int, k: int) -> None:
    reference, engine, labels = coarse(seed)
    margins = label_margins(labels, reference, engine, k=k)
    np.testing.assert_array_equal(margins.reference > 0, topk(labels, reference, k=k) == 1.0)
    np.testing.assert_array_equal(margins.engine > 0, topk(labels, engine, k=k) == 1.0)
    assert margins.can_gain


def test_a_margin_is_the_distance_to_whatever_class_comes_next() -> None:
    reference = np.array([[3.0, 1.0, 0.0]])
    engine = np.array([[3.0, 1.0, 2.5]])
    margins = agreement_margins(reference, engine)
    assert (margins.reference[0], margins.engine[0]) == (2.0, 0.5)


def test_a_label_among_the_best_k_has_the_distance_to_the_class_that_would_push_it_out() -> None:
    scores = np.array([[5.0, 4.0, 1.0, 0.0]])
    assert label_margins(np.array([1]), scores, scores, k=2).reference[0] == 3.0
    assert label_margins(np.array([2]), scores, scores, k=2).reference[0] == -3.0


def test_probabilities_that_saturate_are_compared_by_their_logarithms() -> None:
    # Between 1e-6 and 1e-9 lies nothing that a decision could feel, between 0.5 and 0.4 there does.
    far = agreement_margins(np.array([[1.0 - 1e-6, 1e-6]]), np.array([[1.0, 1e-9]]), probabilities=True)
    near = agreement_margins(np.array([[0.6, 0.4]]), np.array([[0.5001, 0.4999]]), probabilities=True)
    assert abs(far.engine[0] - far.reference[0]) < 0.01  # of margins of 6.9
    assert near.reference[0] == pytest.approx(np.log(0.601 / 0.401))
    assert 0 < near.engine[0] < 0.001


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_threshold_is_a_yes_from_its_own_value_on(probabilities: bool) -> None:
    values = np.array([0.2, 0.5, 0.9], dtype=np.float32)
    moved = np.array([0.5, 0.4, np.nan], dtype=np.float32)
    margins = threshold_margins(values, moved, 0.5, probabilities=probabilities)
    np.testing.assert_array_equal(margins.engine > 0, [False, False, False])
    assert margins.reference[1] < 1e-6 < margins.reference[0]


def test_a_threshold_with_labels_can_be_right_where_the_float_model_was_wrong() -> None:
    margins = threshold_margins(np.array([0.2, 0.8]), np.array([0.6, 0.9]), 0.5, labels=np.array([1, 1]))
    table = margins.table
    assert (table.both, table.lost, table.gained, table.wrong) == (1, 0, 1, 0)
    assert margins.reference[0] == pytest.approx(-0.3)


def test_some_samples_of_margins_are_margins() -> None:
    margins = DecisionMargins(np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0, 2.0]), can_gain=False)
    part = margins.of(np.array([2, 1]))
    np.testing.assert_array_equal(part.engine, [2.0, -1.0])
    assert len(part) == 2


@pytest.mark.parametrize(
    ("reference", "engine", "can_gain"),
    [
        ([1.0, 2.0], [1.0], True),
        ([], [], True),
        ([np.inf], [1.0], True),
        ([1.0], [np.nan], True),
        ([1.0], [0.0], True),
        ([-1.0], [1.0], False),
    ],
)
def test_what_are_no_margins_is_refused(reference: list[float], engine: list[float], can_gain: bool) -> None:
    with pytest.raises(ValueError, match="margin"):
        DecisionMargins(np.array(reference), np.array(engine), can_gain)


def test_whole_numbers_have_no_margins() -> None:
    with pytest.raises(ValueError, match="floating point"):
        agreement_margins(np.array([1, 2]), np.array([1, 2]))


def test_several_decisions_a_sample_are_refused() -> None:
    with pytest.raises(ValueError, match="one decision a sample"):
        agreement_margins(np.zeros((2, 7, 3), dtype=np.float32), np.zeros((2, 7, 3), dtype=np.float32))
