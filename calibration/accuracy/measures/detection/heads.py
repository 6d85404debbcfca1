"""What a detector's outputs are, found from those of the float model, and the detections that they hold.

1. A *list*: one output (samples, rows, columns), each row a box, a score in 0..1 and a class that is a whole number, as graphs with NMS or
   TopK inside end; or the same in outputs of their own.
2. A *head*: one output (samples, 4 + classes, anchors) or (samples, anchors, 4 + classes), YOLO's; ``objectness`` before the classes where
   the user says so.
3. Boxes (samples, rows, 4) and scores (samples, rows, classes) as two outputs, as SSD and DETR have them.

Scores in 0..1 are taken as they are, others are logits: of a softmax where one class stands for nothing (``background``), else of sigmoids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.detection.boxes import possible_formats
from calibration.accuracy.measures.options import Background, MeasureOptions
from calibration.accuracy.measures.softmax import log_softmax
from calibration.errors import InvalidConfigError

Array = NDArray[np.generic]
Doubles = NDArray[np.float64]
Floats = NDArray[np.floating]
# (columns of a row, first of the box, score, class): with NMS or TopK in the graph
_LISTS = ((6, 0, 4, 5), (6, 0, 5, 4), (6, 2, 1, 0), (7, 3, 2, 1))
_LOOKED_AT = 128  # pictures from which the form of a head is found
_PADDING = -1.0  # the score of a row that holds nothing
_SUM = 1e-3  # by which probabilities may miss a sum of 1


@dataclass(frozen=True, slots=True)
class Head:
    """Where boxes, scores and classes are, and how they are read."""

    boxes: int  # the output with the boxes
    scores: int
    classes: int | None  # the output with the classes of a list's rows; None: a score for each class
    anchors_last: bool = False
    columns: tuple[int, int, int] | None = None  # of a list in one output: first of the box, score, class
    is_logits: bool = False
    objectness: bool = False
    background: Background = Background.NONE

    @property
    def is_list(self) -> bool:
        """Whether each row has one class, as after a selection in the graph."""
        return self.columns is not None or self.classes is not None

    @property
    def reads(self) -> tuple[int, ...]:
        """The outputs that it reads."""
        return tuple(dict.fromkeys(index for index in (self.boxes, self.scores, self.classes) if index is not None))

    @property
    def words(self) -> str:
        """What the outputs were taken for."""
        if self.is_list:
            return "a list of boxes with a score and a class each"
        scores = "logits" if self.is_logits else "scores in 0..1"
        empty = "" if self.background is Background.NONE else f", the {self.background} of which means nothing"
        return f"boxes and {scores} of classes{empty}{', behind an objectness' if self.objectness else ''}"


def head_of(reference: Sequence[Array], options: MeasureOptions) -> Head:
    """Return what the outputs of a detector are.

    Args:
        reference: The float model's compared outputs, each (samples, ...).
        options: What the user says of them.

    Raises:
        InvalidConfigError: They are none of the forms above.
    """
    rows = [_rows(array) for array in reference]
    for index, array in enumerate(rows):
        columns = None if array is None else _list_columns(array)
        if columns is not None:
            return Head(index, index, index, columns=columns)
    four = [index for index, array in enumerate(rows) if array is not None and array.shape[2] == 4]
    boxes = next((index for index in four if _are_boxes(rows[index])), four[0] if four else None)
    if boxes is not None and len(reference) > 1:
        found = _beside(rows, reference, boxes)
        if found is not None:
            scores, classes = found
            head = Head(boxes, scores, classes)
            return head if classes is not None else with_activation(head, reference, options)
    for index, array in enumerate(rows):
        if array is not None and min(array.shape[1:]) >= 5:
            return with_activation(Head(index, index, None, anchors_last=_has_anchors_last(array)), reference, options)
    shapes = ", ".join(str(array.shape) for array in reference)
    raise InvalidConfigError(
        f"accuracy.metric: a detector's outputs expected, found {shapes}: none of (samples, rows, 4 + classes), (samples, 4 + classes, "
        "rows), (samples, rows, 6) of box, score and class, or boxes (samples, rows, 4) beside scores (samples, rows, classes)",
        fix="Export the model so that it returns decoded boxes and scores in one of these forms, or choose cosine.",
    )


def candidates_of(head: Head, outputs: Sequence[Array], most: int) -> tuple[Doubles, NDArray[np.int64], Doubles]:
    """Return boxes as they stand in the output, (samples, k, 4), classes and scores, (samples, k): the ``most`` best of a picture.

    Args:
        head: Of the float model.
        outputs: Of any engine, each (samples, ...).
        most: At least 1; of a list all rows are returned.
    """
    array = _rows(outputs[head.boxes])
    assert array is not None  # head_of saw the same shapes
    if head.columns is not None:
        box, score, label = head.columns
        return array[..., box : box + 4].astype(np.float64), _whole(array[..., label]), array[..., score].astype(np.float64)
    if head.classes is not None:
        own, classes = (np.asarray(outputs[index], dtype=np.float64).reshape(array.shape[:2]) for index in (head.scores, head.classes))
        return array.astype(np.float64), _whole(classes), own
    boxes, scores = _boxes_and_scores(head, outputs)
    top = scores.max(axis=2)  # NaN where one is, and last in the order
    best = np.argpartition(-top, min(most, top.shape[1]) - 1, axis=1)[:, :most]
    boxes, scores = (np.take_along_axis(side, best[..., None], axis=1) for side in (boxes, scores))
    count = np.size(scores, 2)
    flat = np.nan_to_num(scores.astype(np.float64), nan=0.0).reshape(len(scores), -1)
    chosen = np.argpartition(-flat, min(most, flat.shape[1]) - 1, axis=1)[:, :most]
    boxes = np.take_along_axis(boxes, (chosen // count)[..., None], axis=1)
    return boxes.astype(np.float64), (chosen % count).astype(np.int64), np.take_along_axis(flat, chosen, axis=1)


def boxes_of(head: Head, outputs: Sequence[Array]) -> Doubles:
    """Return boxes as they stand in the output, (samples, rows, 4), of the first pictures."""
    outputs = [array[:_LOOKED_AT] for array in outputs]
    if head.columns is not None:
        array = _rows(outputs[head.boxes])
        assert array is not None  # head_of saw the same shapes
        return array[..., head.columns[0] : head.columns[0] + 4].astype(np.float64)
    return _raw(head, outputs)[0].astype(np.float64)


def classes_of(head: Head, reference: Sequence[Array]) -> int | None:
    """Return how many classes the model has, None where its outputs do not say."""
    return None if head.is_list else _boxes_and_scores(head, [array[:1] for array in reference])[1].shape[2]


def _boxes_and_scores(head: Head, outputs: Sequence[Array]) -> tuple[Floats, Floats]:
    """Return boxes, (samples, rows, 4), and a probability for each class, (samples, rows, classes), 0 for the background."""
    boxes, scores = _raw(head, outputs)
    with np.errstate(over="ignore", invalid="ignore"):
        if head.is_logits and head.background is not Background.NONE:
            scores = np.exp(log_softmax(scores.astype(np.float64)))
        elif head.is_logits:
            scores = 1.0 / (1.0 + np.exp(-scores))
    if head.objectness:
        scores = scores[..., :1] * scores[..., 1:] if scores.shape[2] > 1 else scores
    if head.background is not Background.NONE:
        scores = scores.copy()
        scores[..., 0 if head.background is Background.FIRST else -1] = 0.0
    return boxes, scores


def _raw(head: Head, outputs: Sequence[Array]) -> tuple[Floats, Floats]:
    boxes = _rows(outputs[head.boxes])
    assert boxes is not None  # head_of saw the same shapes
    if head.boxes != head.scores:
        return boxes, _floats(outputs[head.scores]).reshape(*boxes.shape[:2], -1)
    whole = np.moveaxis(boxes, 1, 2) if head.anchors_last else boxes
    return whole[..., :4], whole[..., 4:]


def _rows(array: Array) -> Floats | None:
    """Return an output as (samples, rows, columns), axes of one left out; None where it has another number of axes."""
    if array.ndim < 3 or array.dtype.kind != "f":
        return None
    shape = array.shape
    kept = [size for size in shape[1:-1] if size != 1] or [1]
    if len(kept) != 1:
        return None
    return _floats(array).reshape(shape[0], kept[0], shape[-1])


def _floats(array: Array) -> Floats:
    """Return the values as they are, without a copy, those of half precision in float32."""
    return np.asarray(array, dtype=np.float64 if array.dtype == np.float64 else np.float32)


def _list_columns(array: Floats) -> tuple[int, int, int] | None:
    for columns, box, score, label in _LISTS:
        if array.shape[2] == columns:
            scores, classes = array[..., score], array[..., label]
            if _is_share(scores) and not _is_whole(scores) and _is_whole(classes):
                return box, score, label
    return None


def _are_boxes(array: Floats | None) -> bool:
    """Return whether rows of four numbers can be boxes, not scores of four classes."""
    assert array is not None  # the caller asked for its columns
    few = array[:_LOOKED_AT].astype(np.float64)
    sums_to_one = _is_share(few) and bool((np.abs(few.sum(axis=2) - 1.0) <= _SUM).all())
    return bool(possible_formats(few)) and not sums_to_one


def _beside(rows: Sequence[Floats | None], reference: Sequence[Array], boxes: int) -> tuple[int, int | None] | None:
    """Return the output of the scores, and that of the classes where they have one, that belong to the boxes."""
    of = rows[boxes]
    assert of is not None
    count = of.shape[1]
    flat: list[int] = []
    labels: list[int] = []
    for index, array in enumerate(reference):
        if index == boxes or array.size != len(array) * count or array.shape[1] != count:
            continue
        is_class = array.dtype.kind in "iub" or _is_whole(np.asarray(array, dtype=np.float64))
        (labels if is_class else flat).append(index)
    if flat and labels:
        return flat[0], labels[0]
    for index, beside in enumerate(rows):
        if index != boxes and beside is not None and beside.shape[1] == count:
            return index, None
    return (flat[0], None) if flat else None


def _has_anchors_last(array: Floats) -> bool:
    """Return whether the anchors are the last axis: the scores are those behind the first four, in 0..1; else the longer axis is theirs."""
    first, last = _is_share(array[:, 4:, :]), _is_share(array[:, :, 4:])
    return array.shape[1] < array.shape[2] if first == last else first


def with_activation(head: Head, reference: Sequence[Array], options: MeasureOptions) -> Head:
    """Return the head with what its scores are: logits or not, and which class stands for nothing; arguments as for ``head_of``."""
    scores = _raw(head, reference)[1]
    is_logits = not _is_share(scores[scores != _PADDING])
    background = options.background
    scores = scores[:_LOOKED_AT]
    if background is None:
        background = Background.NONE
        is_softmax = is_logits or bool((np.abs(scores.sum(axis=2) - 1.0) <= _SUM).all())
        if scores.shape[2] > 1 and is_softmax and not options.objectness:
            p = np.exp(log_softmax(scores.astype(np.float64))) if is_logits else scores.astype(np.float64)
            share = {side: float((p[..., at] > 0.5).mean()) for side, at in ((Background.FIRST, 0), (Background.LAST, -1))}
            best = max(share, key=lambda side: share[side])
            background = best if share[best] > 0.5 else Background.NONE
    return Head(head.boxes, head.scores, None, head.anchors_last, None, is_logits, options.objectness, background)


def _is_share(values: Floats) -> bool:
    return bool(values.size and values.min() >= 0.0 and values.max() <= 1.0)


def _is_whole(values: Floats) -> bool:
    return bool(np.isfinite(values).all() and (values == np.round(values)).all())


def _whole(values: Floats) -> NDArray[np.int64]:
    """Return classes as whole numbers; what is none is no class."""
    return np.where(np.isfinite(values) & (np.abs(values) < 2**31), np.round(values), -1).astype(np.int64)
