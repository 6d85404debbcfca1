"""Labels of a calibration or validation set, checked before anything is compared with them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.token_classes import IGNORED
from calibration.errors import InvalidCalibrationSetError

Array: TypeAlias = NDArray[np.generic]


def class_labels_from(labels: Array, samples: int, name: str) -> NDArray[np.int64]:
    """Return labels that are class indices: one per sample, or one per token with IGNORED for tokens that do not count.

    Args:
        labels: What the file holds: (samples,) or (samples, tokens) of any integer type.
        samples: Samples in the set.
        name: Of the array.

    Raises:
        InvalidCalibrationSetError: They are of another type or shape, or negative.
    """
    if labels.dtype.kind not in "iu":
        found, fix = _not_whole(labels)
        expected = "whole numbers expected (class indices)"
        if _are_several(labels):
            expected = "whole numbers expected: 0 and 1, which of several labels are true of each sample"
        raise InvalidCalibrationSetError(f"array '{name}': {found} found, {expected}", fix=fix)
    if labels.ndim not in (1, 2) or len(labels) != samples or not labels.size:
        raise InvalidCalibrationSetError(
            f"array '{name}': shape {labels.shape} found, ({samples},) expected: one class index per sample",
            fix="Give exactly one label per sample, in the same order (no one-hot rows); (samples, tokens) where every token has one. For "
            "label maps or boxes name the metric that compares with them (accuracy.metric: mean_iou, average_precision).",
        )
    if labels.ndim == 1 and int(labels.min()) < 0:
        raise InvalidCalibrationSetError(
            f"array '{name}': {int(labels.min())} found, class indices from 0 expected",
            fix="Remove the samples without a class, or number the classes from 0.",
        )
    lowest = int(labels.min(initial=0, where=labels != IGNORED))
    if labels.ndim == 2 and lowest < 0:
        raise InvalidCalibrationSetError(
            f"array '{name}': {lowest} found, class indices from 0 expected, or {IGNORED} for tokens that do not count",
            fix=f"Number the classes from 0, and label tokens that do not count {IGNORED}.",
        )
    return labels.astype(np.int64)


def are_numbers(labels: Array) -> bool:
    """Return whether labels are numbers with fractions, which no classes are: what a regression should say."""
    if labels.dtype.kind != "f":
        return False
    numbers = labels.astype(np.float64)
    return bool(np.isfinite(numbers).all() and (numbers != np.round(numbers)).any())


def any_labels_from(labels: Array, samples: int, name: str) -> Array:
    """Return labels for a metric of the user's own, in the machine's byte order.

    Args:
        labels: What the file holds: (samples, ...) numbers or truth values.
        samples: Samples in the set.
        name: Of the array.

    Raises:
        InvalidCalibrationSetError: They are no numbers, or not one entry per sample.
    """
    if labels.dtype.kind not in "fiub":
        raise InvalidCalibrationSetError(
            f"array '{name}': {_type_of(labels)} found, numbers expected", fix="Convert it to a plain number type."
        )
    if labels.ndim == 0 or len(labels) != samples or not labels.size:
        raise InvalidCalibrationSetError(
            f"array '{name}': shape {labels.shape} found, ({samples}, ...) expected: one entry per sample",
            fix="Stack the labels of the samples on the first axis, in the same order.",
        )
    return labels.astype(labels.dtype.newbyteorder("="))


def one_for_each_sample(labels: Array) -> str:
    """Return the fix for rows of labels, (samples, tokens), where the model has a class for each sample and none for tokens."""
    if labels.shape[1] == 1:
        return "Give them without the second axis: labels.reshape(-1)."
    whole = labels.astype(np.int64)
    if bool(np.isin(whole, (0, 1)).all() and (whole.sum(axis=1) == 1).all()):
        return "Convert it: labels.argmax(axis=1), since these are one-hot rows."
    return "Give exactly one label per sample (no rows), or name a metric that needs none, such as agreement."


def _not_whole(labels: Array) -> tuple[str, str]:
    """Return what labels are that are no whole numbers, and what to do."""
    found = _type_of(labels)
    if _are_several(labels):
        return f"{found} of shape {labels.shape}", "Convert it: labels.astype('int64'); the metric decisions then compares with them."
    if labels.dtype.kind in "fb" and labels.ndim == 2 and labels.shape[1] == 1 and np.isfinite(labels.astype(np.float64)).all():
        return f"{found} of shape {labels.shape}", "Convert it: labels.reshape(-1).astype('int64')."
    if labels.dtype.kind in "fb" and labels.ndim == 2 and labels.shape[1] > 1:
        return f"{found} of shape {labels.shape}", "Convert it: labels.argmax(axis=1), if these are one-hot rows."
    numbers = labels.astype(np.float64) if labels.dtype.kind == "f" else np.zeros(0)
    if not np.isfinite(numbers).all():
        return f"{found} with NaN or infinities", "Remove the samples that have no label, and convert the rest: labels.astype('int64')."
    if (numbers != np.round(numbers)).any():
        return (
            f"{found} with fractions",
            "Leave the labels out if they are no classes, name the metric that compares with such (accuracy.metric: regression, r2, ssim, "
            "average_precision), or give a metric model.",
        )
    if labels.dtype.kind in "fb":
        return found, "Convert it: labels.astype('int64')."
    return found, "Give the index that each label has among the model's classes: numpy.array([classes.index(label) for label in labels])."


def _are_several(labels: Array) -> bool:
    """Return whether rows of 0 and 1 say which of several labels are true of each sample, some of none or of two."""
    if labels.dtype.kind not in "fb" or labels.ndim != len(("samples", "labels")) or min(labels.shape) < 1 or labels.shape[1] == 1:
        return False
    numbers = labels.astype(np.float64)
    return bool(np.isin(numbers, (0.0, 1.0)).all() and (numbers.sum(axis=1) != 1.0).any())


def _type_of(labels: Array) -> str:
    return "text" if labels.dtype.kind in "US" else labels.dtype.name
