from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.accuracy.measures.detection.boxes import corners_from, iou, possible_formats
from calibration.accuracy.measures.options import BoxFormat


@pytest.mark.parametrize(
    ("form", "box"),
    [
        (BoxFormat.X1Y1X2Y2, [10, 20, 30, 60]),
        (BoxFormat.Y1X1Y2X2, [20, 10, 60, 30]),
        (BoxFormat.X1Y1WH, [10, 20, 20, 40]),
        (BoxFormat.CXCYWH, [20, 40, 20, 40]),
    ],
)
def test_every_form_gives_the_same_corners(form: BoxFormat, box: list[float]) -> None:
    assert corners_from(np.array([[box]], dtype=np.float64), form).tolist() == [[[10.0, 20.0, 30.0, 60.0]]]


def test_overlaps_have_closed_forms() -> None:
    first = np.array([[[0.0, 0.0, 2.0, 2.0]]])
    second = np.array([[[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0], [1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 1.5, 1.5]]])
    np.testing.assert_allclose(iou(first, second), [[[1 / 3, 1.0, 0.0, 0.0, 0.25]]], rtol=1e-15)


def test_a_box_without_an_area_is_like_itself_alone() -> None:
    boxes = np.array([[[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 2.0], [3.0, 3.0, 2.0, 2.0]]])
    assert iou(boxes, boxes)[0].tolist() == np.eye(3).tolist()


def test_the_form_shows_in_boxes_all_over_the_picture() -> None:
    rng = np.random.default_rng(0)
    middles = np.concatenate([rng.uniform(20, 300, (100, 2)), rng.uniform(5, 40, (100, 2))], axis=1)
    assert possible_formats(middles) == (BoxFormat.CXCYWH,)
    assert possible_formats(corners_from(middles, BoxFormat.CXCYWH)) == (BoxFormat.X1Y1X2Y2,)


def test_boxes_that_may_be_either_are_said_to_be_so() -> None:
    large = np.array([[0.5, 0.5, 0.9, 0.9], [0.48, 0.5, 0.9, 0.95]])  # one thing fills each picture
    assert possible_formats(large) == (BoxFormat.X1Y1X2Y2, BoxFormat.CXCYWH)


def test_offsets_from_anchors_are_no_boxes() -> None:
    assert possible_formats(np.random.default_rng(1).normal(size=(50, 9, 4))) == ()


@given(st.integers(0, 500))
def test_an_overlap_is_the_same_from_either_side(seed: int) -> None:
    boxes = np.random.default_rng(seed).uniform(0, 10, (2, 3, 4))
    np.testing.assert_array_equal(iou(boxes[:1], boxes[1:]), np.swapaxes(iou(boxes[1:], boxes[:1]), 1, 2))


@pytest.mark.parametrize("padding", [0.0, -1.0])
def test_padding_says_nothing_of_the_form(padding: float) -> None:
    boxes = np.full((4, 20, 4), padding)
    boxes[:, :3] = np.random.default_rng(1).uniform(60, 100, (4, 3, 4)) * np.array([1, 1, 0.1, 0.1])
    assert possible_formats(boxes) == (BoxFormat.CXCYWH,)
