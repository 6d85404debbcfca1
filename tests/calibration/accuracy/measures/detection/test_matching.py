from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO  # type: ignore[import-untyped]  # pycocotools publishes no types
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]  # the same

from calibration.accuracy.measures.detection.detections import NONE, Detections, sorted_detections, suppressed
from calibration.accuracy.measures.detection.matching import average_precision, detection_f1


def detections(rng: np.random.Generator, pictures: int, rows: int, classes: int = 2) -> Detections:
    corner, size = rng.uniform(0, 60, (pictures, rows, 2)), rng.uniform(10, 40, (pictures, rows, 2))
    kinds = rng.integers(NONE, classes, (pictures, rows))
    return sorted_detections(np.concatenate([corner, corner + size], axis=2), kinds, rng.uniform(0.01, 1, (pictures, rows)), rows)


def near(wanted: Detections, rng: np.random.Generator, size: float) -> Detections:
    moved = wanted.boxes + size * rng.normal(size=wanted.boxes.shape)
    moved[..., 2:] = np.maximum(moved[..., 2:], moved[..., :2] + 1.0)  # pycocotools leaves boxes of a negative area out
    scores = wanted.scores * rng.uniform(0.9, 1.0, wanted.scores.shape)  # never alike: the order of equals is nobody's business
    return sorted_detections(moved, wanted.classes, scores, wanted.classes.shape[1])


def by_coco(wanted: Detections, found: Detections) -> list[float]:
    """The average precision of each picture by pycocotools: classes lie far apart in one category, so that they make one ranking."""
    scores = []
    for index in range(len(wanted.classes)):
        sides = []
        for side in (wanted, found):
            there = side.classes[index] != NONE
            boxes = side.boxes[index][there] + 1e4 * side.classes[index][there][:, None]
            sides.append([(box, score) for box, score in zip(boxes.tolist(), side.scores[index][there].tolist(), strict=True)])
        truth = [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "area": 1.0, "iscrowd": 0}
            for i, (b, _) in enumerate(sides[0])
        ]
        answers = [{"image_id": 1, "category_id": 1, "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "score": s} for b, s in sides[1]]
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": truth, "info": {}}
            coco.createIndex()
            run = COCOeval(coco, coco.loadRes(answers), "bbox")
            run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
            run.evaluate()
            run.accumulate()
        scores.append(float(run.eval["precision"][:, :, 0, 0, -1].mean()))
    return scores


@pytest.mark.parametrize("size", [0.5, 2.0, 5.0])
def test_average_precision_is_that_of_pycocotools(size: float) -> None:
    rng = np.random.default_rng(int(10 * size))
    wanted = detections(rng, 12, 9)
    extra = detections(rng, 12, 6)
    moved = near(wanted, rng, size)
    boxes, classes, scores = (np.concatenate(pair, axis=1) for pair in zip(_parts(moved), _parts(extra), strict=True))
    found = sorted_detections(boxes, classes, scores, 15)
    np.testing.assert_allclose(average_precision(wanted, found, 0.5), by_coco(wanted, found), atol=1e-9)  # their denominator has a 2e-16


def test_f1_counts_the_right_ones_of_both_sides() -> None:
    boxes = np.array([[[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]])
    wanted = sorted_detections(boxes, np.array([[0, 1, 0]]), np.ones((1, 3)), 3)
    found = sorted_detections(boxes, np.array([[0, 0, NONE]]), np.array([[0.9, 0.8, 0.7]]), 3)  # one right, one of the wrong class
    assert detection_f1(wanted, found).tolist() == [pytest.approx(2 / 5)]
    shifted = sorted_detections(boxes + np.array([0.0, 0, 2, 0]), np.array([[0, 1, 0]]), np.ones((1, 3)), 3)  # IoU 100 / 120
    assert detection_f1(wanted, shifted).tolist() == [pytest.approx(0.7)]  # right at 0.5, 0.55, ... 0.8


def test_a_picture_with_nothing_to_find_is_right_where_nothing_is_found() -> None:
    nothing = sorted_detections(np.zeros((2, 1, 4)), np.full((2, 1), NONE), np.zeros((2, 1)), 1)
    found = sorted_detections(np.array([[[0.0, 0, 1, 1]]] * 2), np.zeros((2, 1), np.int64), np.array([[0.2], [0.6]]), 1)
    assert average_precision(nothing, found, 0.5).tolist() == [1.0, 0.0]
    assert detection_f1(nothing, found.at_least(0.5)).tolist() == [1.0, 0.0]
    assert average_precision(found, nothing, 0.5).tolist() == [0.0, 0.0]


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_the_same_is_perfect_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = suppressed(detections(rng, 3, 12), 0.65)
    order = rng.permutation(12)
    boxes, classes, scores = (part[:, order] for part in _parts(wanted))
    found = sorted_detections(boxes, classes, scores, 12)
    assert (average_precision(wanted, found, 0.25) == 1.0).all()
    assert (detection_f1(wanted, found) == 1.0).all()


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_more_damage_scores_no_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = sorted_detections(*_parts(detections(rng, 40, 5)), 5)
    shift = rng.choice([-1.0, 1.0], size=(40, 5, 1))
    kept = [detection_f1(wanted, sorted_detections(wanted.boxes + size * shift, wanted.classes, wanted.scores, 5)) for size in (0, 1, 3, 8)]
    assert [float(scores.mean()) for scores in kept] == sorted((float(scores.mean()) for scores in kept), reverse=True)


def test_of_those_that_overlap_the_best_of_a_class_stays() -> None:
    boxes = np.array([[[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [2, 0, 12, 10], [50, 0, 60, 10]]])
    found = sorted_detections(boxes, np.array([[0, 0, 1, 0, 0]]), np.array([[0.9, 0.8, 0.7, 0.6, 0.5]]), 5)
    kept = suppressed(found, 0.65)  # the second overlaps the first by 9/11; the fourth by 2/3, and goes too
    assert kept.scores[0][kept.classes[0] != NONE].tolist() == [0.9, 0.7, 0.5]
    assert (suppressed(found, 0.7).classes[0] != NONE).sum() == 4  # the fourth overlaps only what is gone by more
    assert (suppressed(found, 1.0).classes[0] != NONE).all()


def _parts(found: Detections) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return found.boxes, found.classes, found.scores
