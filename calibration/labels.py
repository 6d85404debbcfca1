"""Labels of a calibration or validation set, checked before anything is compared with them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.errors import InvalidCalibrationSetError
from calibration.token_metrics import IGNORED

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
        is_row = labels.ndim == 2 and labels.shape[1] > 1
        found = f"{labels.dtype.name} of shape {labels.shape}" if is_row else labels.dtype.name
        raise InvalidCalibrationSetError(
            f"array '{name}': {found} found, whole numbers expected (class indices)",
            fix="Convert it: labels.argmax(axis=1), if these are one-hot rows." if is_row else "Convert it: labels.astype('int64').",
        )
    if labels.ndim not in (1, 2) or len(labels) != samples or not labels.size:
        raise InvalidCalibrationSetError(
            f"array '{name}': shape {labels.shape} found, ({samples},) expected: one class index per sample",
            fix="Give exactly one label per sample, in the same order (no one-hot rows); (samples, tokens) where every token has one.",
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
            f"array '{name}': {labels.dtype.name} found, numbers expected", fix="Convert it to a plain number type."
        )
    if labels.ndim == 0 or len(labels) != samples or not labels.size:
        raise InvalidCalibrationSetError(
            f"array '{name}': shape {labels.shape} found, ({samples}, ...) expected: one entry per sample",
            fix="Stack the labels of the samples on the first axis, in the same order.",
        )
    return labels.astype(labels.dtype.newbyteorder("="))
