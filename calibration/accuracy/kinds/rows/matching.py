r"""How much of what the float model detects an engine detects, whatever the order of the rows.

Rows are detections with a box, a class and a score; of scores for several classes each (row, class) is one. In the order of the float
model's scores, each takes the free detection of the engine with which it has most in common, like min(s, s'), where s are the scores and

    like = (IoU - 0.5) / 0.45, cut to 0..1, for boxes of one class, else 0:

nothing below the overlap from which boxes are usually said to be the same, everything from the one that the strictest usual threshold asks
for. Other outputs of the same rows lower it by the error in units of their spread. Boxes of no known form are compared column by column, as
in ``calibration.accuracy.kinds.detections``. Then

    kept = 2 sum like min(s, s') / (sum s + sum s'),

the F1 of detections, each counted by its score, so that rows whose score is near 0 say next to nothing. A sample in which neither finds
anything keeps 1 less the largest change of a score, the scores being sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.kinds.detections import FAR, NOTHING
from calibration.accuracy.kinds.part import Array, Booleans, Doubles, JointRows, spread_of
from calibration.accuracy.measures.detection.boxes import corners_from, iou
from calibration.accuracy.measures.detection.detections import NONE
from calibration.accuracy.measures.detection.heads import candidates_of
from calibration.accuracy.measures.options import BoxFormat

SAME, ALIKE = 0.5, 0.95  # overlap from which two boxes are of one detection, and from which they are as good as equal
MOST_ROWS = 512  # of a sample, the best ones
_AT_ONCE = 1 << 22  # pairs of rows
_NOTHING = -1e9  # a logit


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What a model finds, the best first."""

    boxes: Doubles  # (samples, k, 4), as they stand in the output
    classes: Array  # (samples, k) whole numbers
    scores: Doubles  # (samples, k), 0 of what is no detection
    others: Doubles  # (samples, k, columns) of the other outputs of the same rows


def joint_scores(rows: JointRows, reference: Mapping[str, Array], output: Mapping[str, Array]) -> Doubles:
    """Return how much of the float model's detections each sample keeps, (samples,), 0..1.

    Args:
        rows: Which outputs hold them.
        reference: The float model's, by name, each (samples, ...).
        output: An engine's, of the same shapes.
    """
    r, x = _found(rows, reference), _found(rows, output)
    is_broken = np.any([~np.isfinite(_numbers(output[name])).all(axis=1) for name in rows.members], axis=0)
    is_same = np.all([(_numbers(reference[name]) == _numbers(output[name])).all(axis=1) for name in rows.members], axis=0)
    kept = np.min([_kept(r, x, form) for form in rows.forms or (None,)], axis=0)
    kept[is_same] = 1.0
    kept[is_broken] = 0.0
    return np.asarray(kept, dtype=np.float64)


def _found(rows: JointRows, outputs: Mapping[str, Array]) -> _Found:
    arrays = [
        np.where(np.isfinite(array), array, 0.0) if array.dtype.kind == "f" else array for array in map(outputs.__getitem__, rows.names)
    ]
    samples = len(arrays[0])
    boxes = _numbers(arrays[0]).reshape(samples, -1, 4)
    count = boxes.shape[1]
    scores = _numbers(arrays[1]).reshape(samples, count, -1)
    if rows.count is not None:
        beyond = np.arange(count)[None, :] >= _numbers(outputs[rows.count])
        scores = np.where(beyond[..., None], _NOTHING if rows.head.is_logits else 0.0, scores)
    others = np.zeros((samples, count, 0))
    if scores.shape[2] > 1:
        boxes, classes, best = candidates_of(rows.head, [boxes, scores], min(count, MOST_ROWS))
        others = others[:, : boxes.shape[1]]
    else:
        best, classes = scores[..., 0], np.zeros((samples, count), dtype=np.int64)
        if rows.head.classes is not None:
            classes = np.round(_numbers(arrays[2]).reshape(samples, count)).astype(np.int64)
        if rows.others:
            others = np.concatenate([_numbers(outputs[name]).reshape(samples, count, -1) for name in rows.others], axis=2)
            others = np.where(np.isfinite(others), others, 0.0)
    best = np.where(classes == NONE, 0.0, np.clip(best, 0.0, None))
    order = np.argsort(-best, axis=1, kind="stable")[:, :MOST_ROWS]
    return _Found(
        np.take_along_axis(boxes, order[..., None], axis=1),
        np.take_along_axis(classes, order, axis=1),
        np.take_along_axis(best, order, axis=1),
        np.take_along_axis(others, order[..., None], axis=1),
    )


def _kept(r: _Found, x: _Found, form: BoxFormat | None) -> Doubles:
    both = np.zeros(len(r.scores))
    for part, like in _likes(r, x, form):
        s, t = r.scores[part], x.scores[part]
        free = np.ones(t.shape, dtype=np.bool_)
        for rank in range(s.shape[1]):
            if not s[:, rank].any():  # all that follow are nothing
                break
            common = np.where(free, like[:, rank] * np.minimum(s[:, rank, None], t), 0.0)
            best = common.argmax(axis=1)[:, None]
            taken = np.take_along_axis(common, best, axis=1)
            both[part] += taken[:, 0] * _alike(r, x, part, rank, best)
            np.put_along_axis(free, best, np.take_along_axis(free, best, axis=1) & (taken <= 0), axis=1)
    total = r.scores.sum(axis=1) + x.scores.sum(axis=1)
    kept = np.divide(2.0 * both, total, out=np.ones(len(total)), where=total > 0)
    is_empty = np.maximum(r.scores.sum(axis=1), x.scores.sum(axis=1)) < NOTHING
    kept = np.where(is_empty, 1.0 - np.abs(r.scores - x.scores).max(axis=1), kept)
    return np.asarray(np.clip(kept, 0.0, 1.0), dtype=np.float64)


def _likes(r: _Found, x: _Found, form: BoxFormat | None) -> Iterator[tuple[slice, Doubles]]:
    """Yield how alike the detections of some samples are, (samples, the float model's, the engine's), 0..1."""
    samples, rows = r.scores.shape
    step = max(1, _AT_ONCE // max(rows * x.scores.shape[1], 1))
    span = _spans(r)
    for start in range(0, samples, step):
        part = slice(start, start + step)
        one, other = r.boxes[part], x.boxes[part]
        if form is None:
            change = (np.abs(one[:, :, None] - other[:, None]) / span).max(axis=3)
            like = np.where(change > FAR, 0.0, 1.0 - change)
        else:
            like = np.clip((iou(corners_from(one, form), corners_from(other, form)) - SAME) / (ALIKE - SAME), 0.0, 1.0)
        is_same: Booleans = r.classes[part][:, :, None] == x.classes[part][:, None]
        yield part, np.where(is_same, like, 0.0)


def _alike(r: _Found, x: _Found, part: slice, rank: int, best: NDArray[np.int64]) -> Doubles:
    """Return how alike the other outputs of matched rows are, (samples,), 0..1."""
    one, other = r.others[part][:, rank], np.take_along_axis(x.others[part], best[..., None], axis=1)[:, 0]
    if not one.shape[1]:
        return np.ones(len(one))
    says = r.scores >= 0.5 * max(float(r.scores.max(initial=0.0)), 1e-9)
    units = spread_of(r.others[says][:, None]) if says.any() else np.ones(one.shape[1])
    return np.asarray(np.clip(1.0 - np.sqrt((((other - one) / units) ** 2).mean(axis=1)), 0.0, 1.0), dtype=np.float64)


def _spans(r: _Found) -> Doubles:
    """Return what each column of the boxes spans where something is found, (4,)."""
    known = r.boxes[r.scores >= 0.5 * max(float(r.scores.max(initial=0.0)), 1e-9)]
    span = known.max(axis=0) - known.min(axis=0) if len(known) else np.ones(4)
    return np.asarray(np.where(span > 0, span, 1.0), dtype=np.float64)


def _numbers(values: Array) -> Doubles:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)
