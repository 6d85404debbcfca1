"""Scores beside boxes are parts of their own; what is of one piece stays so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.measures.parts import parts_of
from calibration.accuracy.metrics import Metric
from calibration.accuracy.scores import score

RNG = np.random.default_rng(0)


def detections(*, rows_first: bool) -> NDArray[np.float64]:
    """Return boxes of four pixels and three scores of 50 anchors, 12 samples."""
    boxes, scores = RNG.uniform(-5, 640, (12, 50, 4)), RNG.beta(0.3, 3.0, (12, 50, 3))
    both = np.concatenate([boxes, scores], axis=2)
    return both if rows_first else both.transpose(0, 2, 1)


@pytest.mark.parametrize("rows_first", [True, False])
def test_scores_and_boxes_of_one_tensor_are_two_parts(*, rows_first: bool) -> None:
    scores, boxes = parts_of(detections(rows_first=rows_first))
    assert scores.ravel().tolist() == [False] * 4 + [True] * 3
    np.testing.assert_array_equal(boxes, ~scores)


@pytest.mark.parametrize(
    "whole",
    [
        RNG.normal(size=(9, 20)),
        RNG.uniform(0, 1, (9, 20)),
        np.maximum(RNG.normal(size=(9, 20)) * np.linspace(0.1, 1.5, 20), 0.0),  # an embedding behind a Relu: scales differ, not by much
        RNG.uniform(0, 640, (9,)),
        np.zeros((9, 4)),
        np.full((2, 3), np.nan),
        np.zeros((0, 3)),
    ],
)
def test_what_is_of_one_piece_has_no_parts(whole: NDArray[np.float64]) -> None:
    assert parts_of(whole) == ()


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.NMSE])
def test_scores_that_change_are_seen_beside_boxes_that_do_not(metric: Metric) -> None:
    reference = detections(rows_first=True)
    output = reference.copy()
    output[:, :, 4:] = output[:, ::-1, 4:]  # every anchor has another one's scores
    (worst,) = {
        bool(value) for value in np.abs(score(metric, [reference], [reference], None) - score(metric, [output], [reference], None)) > 0.1
    }
    assert worst
    whole = float(np.sum((output - reference) ** 2) / np.sum(reference**2))
    assert whole < 1e-5  # what the norm of all values together says of it
