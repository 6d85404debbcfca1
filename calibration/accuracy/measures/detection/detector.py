"""The measures of detectors: their outputs read as detections, and matched with labels or with the float model's own detections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.detection.boxes import corners_from, possible_formats
from calibration.accuracy.measures.detection.detections import CANDIDATES, MOST, NONE, Detections, sorted_detections, suppressed
from calibration.accuracy.measures.detection.heads import Head, boxes_of, candidates_of, classes_of, head_of
from calibration.accuracy.measures.detection.matching import average_precision, detection_f1
from calibration.accuracy.measures.options import BoxFormat, MeasureOptions
from calibration.accuracy.measures.token_classes import IGNORED
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

THRESHOLD = 0.25  # score from which a detection of the float model must be found again, or
OF_BEST = 0.5  # times the usual best score of a picture, where that is lower: pictures without any detection cannot get worse
LEAST_THRESHOLD = 0.01
_CHUNK = 256  # pictures read at once

Array = NDArray[np.generic]
Scores = NDArray[np.float64]


def precision_of_detections(labels: Array | None, reference: Sequence[Array], outputs: Sequence[Array], options: MeasureOptions) -> Scores:
    """Return the average precision of each picture, (samples,), 0..1.

    Where boxes can be of either form (``possible_formats``), the one by which the float model finds more of the labels counts; without
    labels both are tried, and the worse counts.

    Args:
        labels: (samples, boxes, 5), see ``labelled_boxes``; None: the float model's detections of at least the threshold must be found.
        reference: The float model's outputs, each (samples, ...).
        outputs: An engine's.
        options: What the user says of the outputs.

    Raises:
        InvalidConfigError: The outputs are no detector's.
        InvalidCalibrationSetError: The labels are of another form.
    """
    head = head_of(reference, options)
    forms = formats_of(head, reference, options)
    theirs = [detections(head, reference, form, options) for form in forms]
    threshold = threshold_of(theirs[0], options)
    if labels is None:
        found = [
            average_precision(wanted.at_least(threshold), detections(head, outputs, form, options), threshold)
            for form, wanted in zip(forms, theirs, strict=True)
        ]
        return np.asarray(np.min(found, axis=0), dtype=np.float64)
    labelled = labelled_boxes(labels, classes_of(head, reference))
    best = forms[int(np.argmax([average_precision(labelled, found, threshold).mean() for found in theirs]))]
    return average_precision(labelled, detections(head, outputs, best, options), threshold)


def detections_kept(reference: Sequence[Array], outputs: Sequence[Array], options: MeasureOptions) -> Scores:
    """Return the F1 of each picture's detections against the float model's, (samples,), 0..1, both of at least the threshold.

    Args:
        reference: The float model's outputs, each (samples, ...).
        outputs: An engine's.
        options: What the user says of the outputs.

    Raises:
        InvalidConfigError: The outputs are no detector's.
    """
    head = head_of(reference, options)
    found = []
    for form in formats_of(head, reference, options):
        wanted, mine = (detections(head, side, form, options) for side in (reference, outputs))
        threshold = threshold_of(wanted, options)
        found.append(detection_f1(wanted.at_least(threshold), mine.at_least(threshold)))
    return np.asarray(np.min(found, axis=0), dtype=np.float64)


def detections(head: Head, outputs: Sequence[Array], form: BoxFormat, options: MeasureOptions) -> Detections:
    """Return the detections of each picture in corners, after NMS where the graph has none."""
    parts = []
    for start in range(0, len(outputs[0]), _CHUNK):
        boxes, classes, scores = candidates_of(head, [array[start : start + _CHUNK] for array in outputs], CANDIDATES)
        found = sorted_detections(corners_from(boxes, form), classes, scores, MOST if head.is_list else CANDIDATES)
        parts.append(found if head.is_list else suppressed(found, options.nms_iou))
    return Detections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def formats_of(head: Head, reference: Sequence[Array], options: MeasureOptions) -> tuple[BoxFormat, ...]:
    """Return the form of the boxes, or two where either makes sense.

    Raises:
        InvalidConfigError: The boxes can be of no form that is known: they are not decoded.
    """
    if options.boxes is not None:
        return (options.boxes,)
    found = possible_formats(boxes_of(head, reference))
    if not found:
        raise InvalidConfigError(
            "accuracy.metric: decoded boxes expected (two corners, or middle and size), found numbers that are neither",
            fix="Export the model with its decoding (anchors, strides) in the graph, or give accuracy.measure.boxes, or choose cosine.",
        )
    return found


def threshold_of(theirs: Detections, options: MeasureOptions) -> float:
    """Return the score from which a detection counts, given the float model's detections."""
    if options.threshold is not None:
        return options.threshold
    usual = float(np.median(theirs.scores.max(axis=1, initial=0.0)))
    return max(min(THRESHOLD, OF_BEST * usual), LEAST_THRESHOLD)


def labelled_boxes(labels: Array, classes: int | None) -> Detections:
    """Return labels as detections.

    Args:
        labels: (samples, boxes, 5): class, x1, y1, x2, y2 in the units of the model's boxes; rows of class NONE or IGNORED are padding.
        classes: Of the model; None: unknown.

    Raises:
        InvalidCalibrationSetError: They are of another form.
    """
    if labels.ndim != 3 or labels.shape[2] != 5:
        raise InvalidCalibrationSetError(
            f"labels: shape {labels.shape} found, (samples, boxes, 5) expected: class, x1, y1, x2, y2",
            fix=f"Give each picture as many rows as the fullest has, with class {NONE} in those that are empty.",
        )
    rows = labels.astype(np.float64)
    kinds, boxes = rows[..., 0], rows[..., 1:]
    is_there = (kinds != NONE) & (kinds != IGNORED)
    used, corners = kinds[is_there], boxes[is_there]
    most = np.inf if classes is None else classes - 1
    if used.size and (not (used == np.round(used)).all() or used.min() < 0 or used.max() > most):
        raise InvalidCalibrationSetError(
            f"labels: classes {used.min():g} to {used.max():g} found, whole numbers from 0 to {'any' if classes is None else classes - 1} "
            "expected in the first column",
            fix="Put the class first, numbered as the scores of the model, and the corners x1, y1, x2, y2 behind it.",
        )
    if corners.size and not (np.isfinite(corners).all() and (corners[:, 2:] >= corners[:, :2]).all()):
        raise InvalidCalibrationSetError(
            "labels: boxes found whose second corner is left of or above the first, x1 <= x2 and y1 <= y2 expected",
            fix="Convert middle and size to corners: x1 = cx - w / 2, y1 = cy - h / 2, x2 = cx + w / 2, y2 = cy + h / 2.",
        )
    return sorted_detections(boxes, np.where(is_there, kinds, NONE).astype(np.int64), is_there.astype(np.float64), max(labels.shape[1], 1))


def detector_words(reference: Sequence[Array], options: MeasureOptions) -> str:
    """Return what a detector's outputs were taken for."""
    head = head_of(reference, options)
    forms = formats_of(head, reference, options)
    found = detections(head, reference, forms[0], options)
    at = threshold_of(found, options)
    some = int((found.scores.max(axis=1, initial=0.0) >= at).sum())
    return (
        f"{head.words}; boxes {' or '.join(forms)}; a detection counts from a score of {at:.4g}, which {some} of {len(found.scores)} "
        "pictures have"
    )


def check_detector(reference: Sequence[Array], options: MeasureOptions) -> None:
    """Refuse a float model that finds nothing: every engine that finds nothing would keep that.

    Raises:
        InvalidConfigError: No score reaches the threshold.
    """
    head = head_of(reference, options)
    found = detections(head, reference, formats_of(head, reference, options)[0], options)
    top = float(found.scores.max(initial=0.0))
    if top < threshold_of(found, options):
        raise InvalidConfigError(
            f"accuracy.measure.threshold: found {threshold_of(found, options):g}, but the best score of the float model is {top:.4g}: "
            "nothing is detected, so that nothing can be lost",
            fix="Lower the threshold, or give samples that hold something to detect.",
        )
