from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from calibration.accuracy.measures.detection.detector import (
    check_detector,
    detections_kept,
    detector_words,
    labelled_boxes,
    precision_of_detections,
)
from calibration.accuracy.measures.detection.heads import head_of
from calibration.accuracy.measures.options import Background, BoxFormat, MeasureOptions
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

PICTURES, ROWS, CLASSES = 6, 40, 3
PLAIN = MeasureOptions()


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes in middle and size, and scores of classes in 0..1: a few rows of each picture are sure of one."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(20, 300, (PICTURES, ROWS, 2)), rng.uniform(10, 40, (PICTURES, ROWS, 2))], axis=2)
    scores = rng.uniform(0.0, 0.1, (PICTURES, ROWS, CLASSES))
    for picture in scores:
        for row in rng.choice(ROWS, 6, replace=False):
            picture[row, rng.integers(CLASSES)] = rng.uniform(0.3, 0.95)
    return boxes, scores


def corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], axis=-1)


def logits(scores: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(scores / (1 - scores)))


def rows(boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    return [np.concatenate([boxes, scores], axis=2)]


def a_list(boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    return [np.concatenate([corners(boxes), scores.max(axis=2)[..., None], scores.argmax(axis=2)[..., None]], axis=2)]


def with_background(boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    rest = 1.0 - scores.max(axis=2, keepdims=True)
    p = np.concatenate([scores * scores.max(axis=2, keepdims=True) / scores.sum(axis=2, keepdims=True), rest], axis=2)
    return [5.0 * np.log(p), boxes / 320]


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], list[np.ndarray]]] = {
    "yolo": rows,
    "yolo, anchors last": lambda boxes, scores: [np.moveaxis(rows(boxes, scores)[0], 2, 1)],
    "ssd": lambda boxes, scores: [corners(boxes), scores],
    "ssd, anchors in two axes": lambda boxes, scores: [scores, corners(boxes)[:, :, None]],
    "logits": lambda boxes, scores: [logits(scores), corners(boxes) / 320],
    "detr": with_background,
    "list": a_list,
    "list of outputs": lambda boxes, scores: [corners(boxes), scores.max(axis=2), scores.argmax(axis=2)],
    "list, one axis more": lambda boxes, scores: [a_list(boxes, scores)[0][:, None]],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_head_tells_what_a_drop_of_scores_costs(form: str) -> None:
    boxes, scores = scene()
    reference, damaged = FORMS[form](boxes, scores), FORMS[form](boxes, np.where(scores >= 0.5, 0.15, scores))
    assert detections_kept(reference, reference, PLAIN).tolist() == [1.0] * PICTURES
    assert precision_of_detections(None, reference, reference, PLAIN).tolist() == [1.0] * PICTURES
    assert detections_kept(reference, damaged, PLAIN).mean() < 0.8  # the surest ones are gone


@pytest.mark.parametrize("form", FORMS)
def test_rows_may_change_places(form: str) -> None:
    boxes, scores = scene(1)
    order = np.random.default_rng(2).permutation(ROWS)
    reference, moved = FORMS[form](boxes, scores), FORMS[form](boxes[:, order], scores[:, order])
    assert (detections_kept(reference, moved, PLAIN) == 1.0).all()
    assert (precision_of_detections(None, reference, moved, PLAIN) == 1.0).all()


@pytest.mark.parametrize("form", FORMS)
def test_boxes_that_drift_score_less_and_less(form: str) -> None:
    boxes, scores = scene(3)
    noise = np.random.default_rng(4).normal(size=boxes.shape)
    reference = FORMS[form](boxes, scores)
    kept = [detections_kept(reference, FORMS[form](boxes + size * noise, scores), PLAIN).mean() for size in (0.0, 0.5, 2.0, 6.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 1.0 > 0.9 > kept[-1]


@pytest.mark.parametrize("form", ["yolo", "yolo, anchors last", "ssd", "list", "list of outputs"])
def test_labels_that_the_model_finds_are_found(form: str) -> None:
    boxes, scores = scene(5)
    labels = np.full((PICTURES, 8, 5), -1.0)
    for index, picture in enumerate(scores):
        for place, (row, kind) in enumerate(np.argwhere(picture > 0.25)):
            labels[index, place] = [kind, *corners(boxes)[index, row]]
    reference = FORMS[form](boxes, scores)
    assert precision_of_detections(labels, reference, reference, PLAIN) == pytest.approx(np.ones(PICTURES))
    worse = FORMS[form](boxes, 0.101 - 0.1 * scores)  # what is there has the lowest score
    assert precision_of_detections(labels, reference, worse, PLAIN).mean() < 0.7


def test_boxes_that_may_be_of_two_forms_must_keep_both() -> None:
    large = np.full((PICTURES, 5, 4), [0.5, 0.5, 0.9, 0.9]) + 0.04 * np.random.default_rng(6).random((PICTURES, 5, 4))
    reference = [large, np.full((PICTURES, 5, 1), 0.9) - 0.01 * np.arange(5)[:, None]]
    shifted = [large + np.array([0.06, 0.06, 0.0, 0.0]), reference[1]]
    both = detections_kept(reference, shifted, PLAIN)
    each = [detections_kept(reference, shifted, MeasureOptions(boxes=form)) for form in (BoxFormat.X1Y1X2Y2, BoxFormat.CXCYWH)]
    assert (both == np.minimum(*each)).all()
    assert not (each[0] == each[1]).all()


def test_what_was_taken_for_what_is_told() -> None:
    boxes, scores = scene()
    assert detector_words(rows(boxes, scores), PLAIN) == (
        "boxes and scores in 0..1 of classes; boxes cxcywh; a detection counts from a score of 0.25, which 6 of 6 pictures have"
    )
    assert "logits of classes, the last of which means nothing" in detector_words(with_background(boxes, scores), PLAIN)
    assert "a list of boxes" in detector_words(a_list(boxes, scores), PLAIN)


def test_a_model_of_low_scores_is_held_to_its_own() -> None:
    boxes, scores = scene(7)
    reference, damaged = rows(boxes, 0.1 * scores), rows(boxes, 0.1 * np.where(scores >= 0.5, 0.15, scores))
    assert (detections_kept(reference, reference, PLAIN) == 1.0).all()
    assert detections_kept(reference, damaged, PLAIN).mean() < 0.8
    assert "from a score of 0.0" in detector_words(reference, PLAIN)


def test_a_class_that_means_nothing_is_no_detection() -> None:
    boxes, scores = scene()
    outputs = with_background(boxes, scores)
    assert head_of(outputs, PLAIN).background is Background.LAST
    broken = [outputs[0].copy(), outputs[1].copy()]
    broken[1][outputs[0][..., CLASSES] > 2 + outputs[0][..., :CLASSES].max(axis=2)] = 0.0  # boxes of rows that found nothing
    assert (detections_kept(outputs, broken, PLAIN) == 1.0).all()
    assert detections_kept(outputs, broken, MeasureOptions(background=Background.NONE)).mean() < 0.7


def test_objectness_multiplies_the_scores() -> None:
    boxes, scores = scene()
    there = np.where(np.arange(ROWS) % 2, 1.0, 0.01)[None, :, None] * np.ones((PICTURES, ROWS, 1))
    output = [np.concatenate([boxes, there, scores], axis=2)]
    options = MeasureOptions(objectness=True)
    assert (detections_kept(rows(boxes, there * scores), rows(boxes, there * scores), PLAIN) == 1.0).all()
    without = [output[0].copy()]
    without[0][:, ::2, 5:] = 0.9  # classes of rows where there is nothing
    assert (detections_kept(output, without, options) == 1.0).all()


def test_an_engine_that_is_no_number_any_more_finds_nothing() -> None:
    for form in FORMS.values():
        reference = form(*scene())
        broken = [np.full_like(array, np.nan) if array.dtype.kind == "f" else array for array in reference]
        assert detections_kept(reference, broken, PLAIN).tolist() == [0.0] * PICTURES


def test_outputs_that_are_no_detector_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"a detector's outputs expected, found \(6, 10\)"):
        head_of([np.zeros((6, 10), np.float32)], PLAIN)
    boxes, scores = scene()
    offsets = [np.random.default_rng(0).normal(size=boxes.shape), scores]
    with pytest.raises(InvalidConfigError, match="decoded boxes expected"):
        detections_kept(offsets, offsets, PLAIN)
    with pytest.raises(InvalidConfigError, match=r"best score of the float model is 0\.\d+: nothing is detected"):
        check_detector(rows(boxes, 0.2 * scores), MeasureOptions(threshold=0.25))


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((2, 4)), r"shape \(2, 4\) found, \(samples, boxes, 5\) expected"),
        (np.array([[[3.0, 0, 0, 1, 1]]]), "classes 3 to 3 found, whole numbers from 0 to 2"),
        (np.array([[[0.5, 0, 0, 1, 1]]]), "classes 0.5 to 0.5 found"),
        (np.array([[[1.0, 50, 50, 10, 10]]]), "second corner is left of or above the first"),
    ],
)
def test_labels_of_another_form_are_refused(labels: np.ndarray, match: str) -> None:
    with pytest.raises(InvalidCalibrationSetError, match=match):
        labelled_boxes(labels, 3)
