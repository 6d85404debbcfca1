"""The measures of whole tasks: of decisions, detectors, segmentation, sequences, retrieval, regression, sounds and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.detection.detector import check_detector, detections_kept, detector_words, precision_of_detections
from calibration.accuracy.measures.detection.heads import head_of
from calibration.accuracy.measures.joint import JointMeasure, JointScore, one_by_one, reading
from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.measures.tasks.decisions import decisions, labelled_decisions, threshold_for
from calibration.accuracy.measures.tasks.regression import r2, regression
from calibration.accuracy.measures.tasks.retrieval import neighbours_kept, neighbours_of
from calibration.accuracy.measures.tasks.segmentation import class_axis_of, dense_classes, label_map, mean_iou
from calibration.accuracy.measures.tasks.sequences import (
    Symbols,
    blank_of,
    counted_tokens,
    ctc_sequences,
    edit_similarity,
    exact_match,
    labelled_sequences,
    token_sequences,
)
from calibration.accuracy.measures.tasks.signals import si_snr, ssim

Array = NDArray[np.generic]
Scores = NDArray[np.float64]
Compare = Callable[[Sequence[Symbols], Sequence[Symbols]], Scores]

_DETECTOR_OPTIONS = frozenset({"threshold", "boxes", "objectness", "background", "nms_iou"})


def _score_reads(reference: Sequence[Array], options: MeasureOptions) -> tuple[int, ...]:
    """Return the outputs of scores in 0..1; where there are none, all that are no whole numbers, which take a threshold of their own."""
    floats = reading(_is_float)(reference, options)
    shares = tuple(index for index in floats if reference[index].size and reference[index].min() >= 0.0 and reference[index].max() <= 1.0)
    return shares or floats


def _decision_words(reference: Sequence[Array], options: MeasureOptions) -> str:
    return f"decisions at {', '.join(f'{threshold_for(array, options.threshold):g}' for array in reference)}"


def _neighbour_words(reference: Sequence[Array], options: MeasureOptions) -> str:
    return f"embeddings, of which the {neighbours_of(len(reference[0]), options.neighbours)} nearest neighbours by cosine are compared"


def _dense_words(reference: Sequence[Array], options: MeasureOptions) -> str:
    if reference[0].dtype.kind != "f":
        return "classes of pixels"
    axis = class_axis_of(reference[0], options.class_axis)
    if axis is None:
        return f"a mask of pixels with at least {threshold_for(reference[0], options.threshold):g}"
    return f"scores of {reference[0].shape[axis]} classes for each pixel, on axis {axis}"


def _frame_words(reference: Sequence[Array], options: MeasureOptions) -> str:
    return f"CTC frames whose blank is class {blank_of(reference[0], options.blank)}"


def _detector_reads(reference: Sequence[Array], options: MeasureOptions) -> tuple[int, ...]:
    return tuple(sorted(head_of(reference, options).reads))


def _kept(labels: Array | None, reference: Sequence[Array], outputs: Sequence[Array], options: MeasureOptions) -> Scores:
    return detections_kept(reference, outputs, options)


def _dense(reference: Array, output: Array, options: MeasureOptions) -> Scores:
    truth, found = (dense_classes(side, reference, options.class_axis, options.threshold) for side in (reference, output))
    return mean_iou(truth, found)


def _dense_labelled(labels: Array, reference: Array, output: Array, options: MeasureOptions) -> Scores:
    truth = label_map(labels, reference, options.class_axis)
    return mean_iou(truth, dense_classes(output, reference, options.class_axis, options.threshold))


def _ctc(compare: Compare) -> JointScore:
    def measure(reference: Array, output: Array, options: MeasureOptions) -> Scores:
        wanted, found = ctc_sequences(reference, (reference, output), options.blank)
        return compare(wanted, found)

    def labelled(labels: Array, reference: Array, output: Array, options: MeasureOptions) -> Scores:
        (found,) = ctc_sequences(reference, (output,), options.blank)
        return compare(labelled_sequences(labels), found)

    return one_by_one(measure, labelled)


def _tokens(compare: Compare) -> JointScore:
    def measure(reference: Array, output: Array, options: MeasureOptions) -> Scores:
        return compare(token_sequences(reference), token_sequences(output))

    def labelled(labels: Array, reference: Array, output: Array, options: MeasureOptions) -> Scores:
        found = token_sequences(output, counted_tokens(labels, output))
        return compare(labelled_sequences(labels), found)

    return one_by_one(measure, labelled)


def _values(measure: Callable[[Array, Array], Scores]) -> JointScore:
    def compared(reference: Array, output: Array, options: MeasureOptions) -> Scores:
        return measure(reference, output)

    def labelled(labels: Array, reference: Array, output: Array, options: MeasureOptions) -> Scores:
        return measure(labels, output)

    return one_by_one(compared, labelled)


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f"


def _has_pixels(array: Array) -> bool:
    return array.ndim >= (4 if _is_float(array) else 3)


def _has_tokens(array: Array) -> bool:
    return array.ndim == (3 if _is_float(array) else 2)


DECISIONS = JointMeasure(
    one_by_one(
        lambda reference, output, options: decisions(reference, output, options.threshold),
        lambda labels, reference, output, options: labelled_decisions(labels, reference, output, options.threshold),
    ),
    _score_reads,
    frozenset({"threshold"}),
    _decision_words,
    tells_change=True,
)
AVERAGE_PRECISION = JointMeasure(
    precision_of_detections, _detector_reads, _DETECTOR_OPTIONS, detector_words, check_detector, reads_whole_numbers=True
)
DETECTIONS = JointMeasure(_kept, _detector_reads, _DETECTOR_OPTIONS, detector_words, check_detector, reads_whole_numbers=True)
MEAN_IOU = JointMeasure(
    one_by_one(_dense, _dense_labelled),
    reading(_has_pixels),
    frozenset({"class_axis", "threshold"}),
    _dense_words,
    reads_whole_numbers=True,
)
EXACT_MATCH = JointMeasure(_tokens(exact_match), reading(_has_tokens), reads_whole_numbers=True)
EDIT_SIMILARITY = JointMeasure(_tokens(edit_similarity), reading(_has_tokens), reads_whole_numbers=True)
CTC_EXACT_MATCH = JointMeasure(_ctc(exact_match), reading(_has_tokens), frozenset({"blank"}), _frame_words)
CTC_EDIT_SIMILARITY = JointMeasure(_ctc(edit_similarity), reading(_has_tokens), frozenset({"blank"}), _frame_words)
RETRIEVAL = JointMeasure(
    one_by_one(lambda reference, output, options: neighbours_kept(reference, output, options.neighbours)),
    reading(_is_float),
    frozenset({"neighbours"}),
    _neighbour_words,
)
REGRESSION = JointMeasure(_values(regression), reading(_is_float))
R2 = JointMeasure(_values(r2), reading(_is_float))
SI_SNR = JointMeasure(one_by_one(lambda reference, output, options: si_snr(reference, output)), reading(_is_float))
SSIM = JointMeasure(_values(ssim), reading(lambda array: _is_float(array) and array.ndim >= 3))
