from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.measures.tasks.segmentation import VOID, class_axis_of, dense_classes, label_map, mean_iou
from calibration.accuracy.measures.token_classes import IGNORED
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError


def by_hand(truth: np.ndarray, found: np.ndarray) -> float:
    used = truth >= 0
    truth, found = truth[used], found[used]
    present = np.union1d(truth, found)
    parts = [((truth == c) & (found == c)).sum() / ((truth == c) | (found == c)).sum() for c in present]
    return float(np.mean(parts)) if len(parts) else 1.0


def test_iou_is_averaged_over_the_classes_that_are_there() -> None:
    assert mean_iou(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])).tolist() == [pytest.approx((1 / 2 + 2 / 3) / 2)]
    assert mean_iou(np.array([[0, 0, 5, 5]]), np.array([[0, 0, 7, 7]])).tolist() == [pytest.approx(1 / 3)]


@given(st.integers(0, 1000))
def test_counts_are_those_of_sets_of_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(IGNORED if seed % 2 else 0, 4, (3, 40)), rng.integers(0, 5, (3, 40))
    truth = np.where(truth < 0, IGNORED, truth)
    np.testing.assert_allclose(mean_iou(truth, found), [by_hand(t, x) for t, x in zip(truth, found, strict=True)], rtol=1e-12)
    assert (mean_iou(truth, np.where(truth < 0, found, truth)) == 1.0).all()


@pytest.mark.long
def test_many_pictures_are_counted_in_parts() -> None:
    truth = np.random.default_rng(0).integers(0, 3, (9, 2**20))
    found = np.where(np.arange(2**20) < 1000, 2 - truth, truth)
    np.testing.assert_allclose(mean_iou(truth, found)[[0, 8]], [by_hand(truth[i], found[i]) for i in (0, 8)], rtol=1e-12)


def test_classes_lie_on_the_shorter_of_the_two_axes() -> None:
    scores = np.random.default_rng(1).normal(size=(2, 3, 8, 6))
    assert (class_axis_of(scores), class_axis_of(np.moveaxis(scores, 1, 3))) == (1, 3)
    assert (dense_classes(scores, scores) == dense_classes(np.moveaxis(scores, 1, 3), np.moveaxis(scores, 1, 3))).all()
    assert class_axis_of(np.zeros((1, 150, 16, 16))) == 1  # more classes than pixels in a row
    assert class_axis_of(np.zeros((1, 16, 16, 150))) == 3
    assert class_axis_of(scores, 2) == 2
    assert dense_classes(scores, scores).shape == (2, 48)
    with pytest.raises(InvalidConfigError, match="class_axis: found 4, expected at most 3"):
        class_axis_of(scores, 4)


def test_one_score_a_pixel_is_a_mask() -> None:
    mask = np.array([[[[0.2, 0.6], [0.5, 0.1]]]])
    assert dense_classes(mask, mask).tolist() == [[0, 1, 1, 0]]
    assert dense_classes(mask, mask, threshold=0.15).tolist() == [[1, 1, 1, 0]]
    with pytest.raises(InvalidConfigError, match="where no threshold is given"):
        dense_classes(4 * mask, 4 * mask)


def test_a_pixel_that_is_no_number_has_no_class_of_the_truth() -> None:
    scores = np.random.default_rng(2).normal(size=(1, 2, 4, 4))
    broken = np.full(scores.shape, np.nan)
    assert mean_iou(dense_classes(scores, scores), dense_classes(broken, scores)).tolist() == [0.0]


def test_label_maps_say_which_pixels_count() -> None:
    scores = np.zeros((1, 3, 2, 2))
    assert label_map(np.array([[[0, VOID], [2, IGNORED]]]), scores).tolist() == [[0, IGNORED, 2, IGNORED]]


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((1, 4, 4), np.int64), r"shape \(1, 4, 4\) found, whole numbers of shape \(1, 2, 2\) expected"),
        (np.zeros((1, 2, 2)), "float64 of shape"),
        (np.array([[[0, 3], [1, 1]]]), "found values 0 to 3, expected classes 0 to 2"),
    ],
)
def test_label_maps_of_another_form_are_refused(labels: np.ndarray, match: str) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=match):
        label_map(labels, np.zeros((1, 3, 2, 2)))


def test_rows_are_no_pictures() -> None:
    with pytest.raises(InvalidConfigError, match=r"found an output of shape \(5, 3\)"):
        class_axis_of(np.zeros((5, 3)))
