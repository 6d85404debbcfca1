"""Finds outputs of which row k is detection k: boxes (samples, rows, 4), their scores, perhaps classes, and how many rows count.

They are taken together where the rows have no order of their own, so that comparing place by place would call a swap an error:

1. the user calls one of them ``detections``;
2. a TopK or a NonMaxSuppression in the graph puts the rows in order, or chose them: a TopK before them gives as many as there are rows;
3. the best score falls along the rows of every sample.

Anchors of a head without any of these keep their places, and each output is judged by itself. Other outputs with the same rows (keypoints,
coefficients of masks) belong to them where the graph orders them too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.part import SAID, Array, Doubles, JointRows
from calibration.accuracy.measures.detection.boxes import possible_formats
from calibration.accuracy.measures.detection.heads import Head, with_activation
from calibration.accuracy.measures.options import MeasureOptions
from calibration.accuracy.metrics import OutputKind

PADDING = -1.0  # a score or a class of a row that holds nothing
LEAST_FALLS = 16  # neighbouring rows with different scores: fewer may be in order by chance
_BOXES, _SCORES = ("box", "bbox", "rect"), ("score", "conf", "prob", "logit", "cls", "class")
_COUNTS = ("num", "count", "valid", "n_det", "ndet", "dets_num")


def joint_rows(outputs: Sequence[Evidence], said: Mapping[str, OutputKind]) -> tuple[JointRows, str] | None:
    """Return the outputs that are detections together, and what tells it; None of none.

    Args:
        outputs: All that are read, whole numbers too.
        said: What the user says of them, by name; of another kind than detections: it stays apart.
    """
    known = [one for one in outputs if said.get(one.name, OutputKind.DETECTIONS) is OutputKind.DETECTIONS]
    for boxes in sorted(known, key=lambda one: not one.is_called(*_BOXES)):
        values = in_rows(boxes.values)
        if values is None or values.shape[2] != 4 or boxes.values.dtype.kind != "f":
            continue
        same = [one for one in known if one is not boxes and _has_rows(one, values.shape[1])]
        classes = next((one for one in _likely(same, "class", "label", "cls", "id") if _are_classes(one)), None)
        scores = next((one for one in _likely(same, *_SCORES) if one is not classes and _are_scores(one)), None)
        if scores is None:
            continue
        members = [boxes, scores, *([] if classes is None else [classes])]
        why = SAID if any(one.name in said for one in members) else _unordered(members, values.shape[1])
        if why is not None:
            return _rows_of(members, known, classes is not None), why
    return None


def in_rows(values: Array) -> Array | None:
    """Return an output as (samples, rows, columns), axes of one left out; None where it has another number of axes."""
    kept = [size for size in values.shape[1:] if size != 1]
    return values.reshape(len(values), kept[0], kept[1] if len(kept) == 2 else 1) if 1 <= len(kept) <= 2 else None


def _rows_of(members: Sequence[Evidence], known: Sequence[Evidence], has_classes: bool) -> JointRows:
    boxes, scores = members[0], members[1]
    rows = in_rows(boxes.values)
    assert rows is not None  # it was found by that
    arrays = [in_rows(one.values) for one in members]
    head = Head(0, 1, 2 if has_classes else None)
    if not has_classes:
        head = with_activation(head, [array for array in arrays if array is not None], MeasureOptions())
    count = next((one for one in known if one not in members and _is_count(one, rows.shape[1])), None)
    rest = [one for one in known if one not in members and one is not count and scores.values.size == len(rows) * rows.shape[1]]
    others = tuple(one.name for one in rest if one.values.dtype.kind == "f" and one.ending.selects and _has_rows(one, rows.shape[1]))
    there = np.asarray(rows, dtype=np.float64)[_are_there(scores, rows.shape[1])]
    forms = possible_formats(there) if len(there) else ()
    return JointRows(tuple(one.name for one in members), head, forms, None if count is None else count.name, others)


def _are_there(scores: Evidence, rows: int) -> Array:
    """Return which rows hold something, (samples, rows)."""
    best = np.asarray(scores.values, dtype=np.float64).reshape(len(scores.values), rows, -1).max(axis=2)
    return np.asarray(best > 0.0 if best.max() > 0.0 else np.ones(best.shape, dtype=np.bool_))


def _likely(outputs: Iterable[Evidence], *words: str) -> list[Evidence]:
    return sorted(outputs, key=lambda one: not one.is_called(*words))


def _has_rows(one: Evidence, rows: int) -> bool:
    found = next((size for size in one.values.shape[1:] if size != 1), 1)
    return found == rows


def _are_classes(one: Evidence) -> bool:
    """Whether each row has one whole number, at least -1."""
    return one.values.size == len(one.values) * _longest(one) and _is_whole(one.values) and bool(one.values.min() >= PADDING)


def _are_scores(one: Evidence) -> bool:
    """Whether each row has a score in 0..1, or one for each of several classes."""
    if one.values.dtype.kind != "f" or not np.isfinite(np.asarray(one.values, dtype=np.float64)).all():
        return False
    values = np.asarray(one.values, dtype=np.float64)
    shown = values[values != PADDING]
    are_shares = bool(shown.size and shown.min() >= 0.0 and shown.max() <= 1.0)
    if values.size == len(values) * _longest(one):
        return are_shares and not _is_whole(shown)
    return in_rows(one.values) is not None and (are_shares or one.is_called(*_SCORES))


def _longest(one: Evidence) -> int:
    return next((size for size in one.values.shape[1:] if size != 1), 1)


def _is_whole(values: Array) -> bool:
    known = np.asarray(values, dtype=np.float64)
    return bool(np.isfinite(known).all() and (known == np.round(known)).all())


def _is_count(one: Evidence, rows: int) -> bool:
    """Whether an output says how many of the rows of each sample hold something."""
    if not one.is_single or not _is_whole(one.values) or one.values.dtype.kind == "b":
        return False
    return bool(one.values.min() >= 0 and one.values.max() <= rows) and one.is_called(*_COUNTS)


def _unordered(members: Sequence[Evidence], rows: int) -> str | None:
    """Return what tells that the rows have no order of their own, by rules 2 and 3."""
    if any(one.ending.selects for one in members):
        return "a TopK or NMS in the graph puts their rows in order"
    if all(rows in one.ending.chosen for one in members):
        return "a TopK in the graph chooses their rows"
    best: Doubles = np.asarray(members[1].values, dtype=np.float64).reshape(len(members[1].values), rows, -1).max(axis=2)
    steps = np.diff(best, axis=1)
    if bool((steps <= 1e-6).all()) and int((steps < -1e-6).sum()) >= LEAST_FALLS:
        return "their rows are sorted by score"
    return None
