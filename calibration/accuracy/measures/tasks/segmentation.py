r"""Mean intersection over union (IoU) of each picture: of dense classes, or of one mask, with label maps or with the float model's classes.

With T_c and X_c the pixels of class c in truth and output, over the classes that either has,

    mIoU = mean_c |T_c and X_c| / |T_c or X_c|.

That is the mean of a picture; the figure that data sets publish pools the pixels of all pictures before it divides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.tasks.decisions import threshold_for
from calibration.accuracy.measures.token_classes import IGNORED
from calibration.errors import InvalidCalibrationSetError, InvalidConfigError

VOID = 255  # in label maps of bytes the usual mark of pixels that do not count
_BROKEN = -1  # the class of a pixel whose scores are NaN
_CHUNK = 2**22  # pixels in one count

Array = NDArray[np.generic]
Classes = NDArray[np.int64]


def mean_iou(truth: Classes, found: Classes) -> NDArray[np.float64]:
    """Return the mean IoU of each picture, (samples,), 0..1; 1 where no pixel counts.

    Args:
        truth: (samples, pixels) classes from 0; IGNORED for pixels that do not count.
        found: The same shape; a negative class is none of the truth's.
    """
    classes = int(max(truth.max(initial=0), found.max(initial=0))) + 2  # the last one for what is broken
    scores = np.ones(len(truth))
    step = max(_CHUNK // max(truth.shape[1], classes), 1)
    for start in range(0, len(truth), step):
        t, x = truth[start : start + step], found[start : start + step]
        counts = t >= 0
        x = np.where(x < 0, classes - 1, x)
        offset = classes * np.arange(len(t))[:, None]
        size = classes * len(t)
        areas = [np.bincount((offset + side)[counts], minlength=size).reshape(-1, classes) for side in (np.where(counts, t, 0), x)]
        both = np.bincount((offset + np.where(counts, t, 0))[counts & (t == x)], minlength=size).reshape(-1, classes)
        union = areas[0] + areas[1] - both
        is_there = union > 0
        iou = np.divide(both, union, out=np.zeros(union.shape), where=is_there)
        present = is_there.sum(axis=1)
        scores[start : start + step] = np.where(present > 0, iou.sum(axis=1) / np.maximum(present, 1), 1.0)
    return scores


def dense_classes(output: Array, reference: Array, class_axis: int | None = None, threshold: float | None = None) -> Classes:
    """Return the class of each pixel, (samples, pixels).

    Args:
        output: (samples, classes, height, width) or (samples, height, width, classes) scores; of one class those of a mask; or whole
            numbers, the classes themselves.
        reference: The float model's, of the same form: what is not said is found from it.
        class_axis: Of the classes; None: as ``class_axis_of`` finds it.
        threshold: Of a mask.

    Raises:
        InvalidConfigError: The output is of another form.
    """
    if output.dtype.kind in "iub":
        return output.reshape(len(output), -1).astype(np.int64)
    axis = class_axis_of(reference, class_axis)
    if axis is None:
        at = threshold_for(reference, threshold)
        found = (output >= np.asarray(at)).astype(np.int64)
        return np.where(np.isnan(output), _BROKEN, found).reshape(len(output), -1)
    found = np.where(np.isnan(output.max(axis=axis)), _BROKEN, output.argmax(axis=axis))  # max hands NaN on
    return found.reshape(len(output), -1).astype(np.int64)


def class_axis_of(reference: Array, class_axis: int | None = None) -> int | None:
    """Return the axis of the classes in an output of scores; None where each pixel has one score, that of a mask.

    Raises:
        InvalidConfigError: It has no such axis.
    """
    if reference.ndim < 3:
        raise InvalidConfigError(
            f"accuracy.metric: mean_iou needs classes or a score for each pixel, found an output of shape {reference.shape}",
            fix="Choose another metric, such as agreement or decisions.",
        )
    if class_axis is not None:
        if class_axis >= reference.ndim:
            raise InvalidConfigError(
                f"accuracy.measure.class_axis: found {class_axis}, expected at most {reference.ndim - 1}: the output has shape "
                f"{reference.shape}",
                fix="Count the axes from 0, samples first.",
            )
        return class_axis if reference.shape[class_axis] > 1 else None
    if reference.ndim == 3:  # (samples, height, width)
        return None
    first, *between, last = reference.shape[1:]
    if between[-1] == last or between[0] == first:  # height and width are alike
        axis = 1 if between[-1] == last else reference.ndim - 1
    else:
        axis = 1 if first <= last else reference.ndim - 1
    return axis if reference.shape[axis] > 1 else None


def label_map(labels: Array, reference: Array, class_axis: int | None = None) -> Classes:
    """Return the labels of the pixels, (samples, pixels), IGNORED where they do not count.

    Args:
        labels: (samples, height, width) class indices; IGNORED, or VOID where the model has no such class, for pixels that do not count.
        reference: The float model's output.
        class_axis: As for ``dense_classes``.

    Raises:
        InvalidCalibrationSetError: The labels are of another form than the output.
        InvalidConfigError: As for ``class_axis_of``.
    """
    if reference.dtype.kind in "iub":
        pixels, classes = tuple(size for size in reference.shape[1:] if size > 1), None
    else:
        axis = class_axis_of(reference, class_axis)
        pixels = tuple(size for index, size in enumerate(reference.shape) if index not in (0, axis) and size > 1)
        classes = 2 if axis is None else reference.shape[axis]
    shape = tuple(size for size in labels.shape[1:] if size > 1)
    if labels.dtype.kind not in "iub" or shape != pixels:
        raise InvalidCalibrationSetError(
            f"labels: {labels.dtype.name} of shape {labels.shape} found, whole numbers of shape {(len(reference), *pixels)} expected: "
            "the class of each pixel of the model's output",
            fix="Give label maps of the output's size (resize them to the nearest pixel), without one-hot axes.",
        )
    found = labels.reshape(len(labels), -1).astype(np.int64)
    if classes is not None and classes <= VOID:
        found = np.where(found == VOID, IGNORED, found)
    used = found[found != IGNORED]
    top = None if classes is None else classes - 1
    if used.size and (int(used.min()) < 0 or (top is not None and int(used.max()) > top)):
        raise InvalidCalibrationSetError(
            f"labels: found values {used.min()} to {used.max()}, expected classes 0 to {'any' if top is None else top}, or {IGNORED} or "
            f"{VOID} for pixels that do not count",
            fix="Number the classes as the model does, from 0.",
        )
    return found
