r"""Detections: rows that the graph has put in order by their scores, each a box, a score, perhaps a class.

Evidence: rows that come from a TopK or a NonMaxSuppression in the graph. Rows with next to equal scores swap places in every engine, and
those whose score is near 0 say nothing. So rows are matched, not compared by position: in the order of the float model's scores, each takes
the nearest row of the engine that is left (largest change of a column, in units of the column's spread over the rows that say something).
Of a sample with s the scores, and like in 0..1 how alike a pair is (1 less the largest change of a column in units of what it spans, 0
beyond FAR of it, and for whole numbers, as classes are, 0 where they differ):

    kept = 2 sum like min(s, s') / (sum s + sum s'),

which is the F1 of detections, each counted by its score. A sample in which neither finds anything keeps 1 - the largest change of a score.
Probes take the squared change of matched rows, weighted by the scores.
"""

from __future__ import annotations

import numpy as np

from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.part import FEW, Array, Booleans, Doubles, Part, spread_of
from calibration.accuracy.metrics import OutputKind

FAR = 0.25  # of a column's span: rows farther apart are other detections
NOTHING = 0.05  # scores that add up to less in both find nothing
MOST_ROWS = 1024
_BOX_AND_SCORE = 5  # columns: of fewer, which may be the box alone in 0..1, one that does not fall is no score


def detection_parts(evidence: Evidence) -> tuple[Part, ...]:
    """Return the part of rows without an order of their own; none where no column orders the rows.

    The score is the column in 0..1 that falls along the rows of every sample; where rows are boxes of several classes, none may.
    """
    if evidence.values.ndim != 3 or not 1 <= evidence.values.shape[1] <= MOST_ROWS or evidence.values.shape[2] > 4 * FEW:
        return ()
    rows = np.asarray(evidence.values, dtype=np.float64)
    if not np.isfinite(rows).all():
        return ()
    low, high = rows.min(axis=(0, 1)), rows.max(axis=(0, 1))
    falls = np.asarray((np.diff(rows, axis=1) <= 1e-6).all(axis=(0, 1))) & (rows.shape[1] > 1)
    found = np.flatnonzero((low >= 0) & (high <= 1) & (high > low))
    falling = [int(place) for place in found if falls[place]]
    if not falling and not (len(found) and rows.shape[2] >= _BOX_AND_SCORE):
        return ()
    score = falling[0] if falling else int(found[-1])
    return (Part(OutputKind.DETECTIONS, 2, (score,), tuple(map(float, spread_of(rows)))),)


def detection_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return how much of what the float model finds in each sample the engine finds, by the rule above."""
    r = np.asarray(reference, dtype=np.float64)
    is_broken = ~np.isfinite(np.asarray(output, dtype=np.float64)).all(axis=(1, 2))
    x = matched(part, r, np.where(np.isfinite(output), np.asarray(output, dtype=np.float64), 0.0))
    place = part.places[0]
    s, t = np.clip(r[:, :, place], 0.0, None), np.clip(x[:, :, place], 0.0, None)
    span = _spans(r, place)
    is_class = _are_classes(r, place)
    change = np.abs(x - r) / span
    change[:, :, is_class] = np.where(change[:, :, is_class] > 0, 1.0, 0.0)
    worst = change.max(axis=2)
    like = np.where(worst > FAR, 0.0, 1.0 - worst)
    both, total = 2.0 * (like * np.minimum(s, t)).sum(axis=1), s.sum(axis=1) + t.sum(axis=1)
    kept = np.divide(both, total, out=np.ones(len(r)), where=total > 0)
    is_empty = np.maximum(s.sum(axis=1), t.sum(axis=1)) < NOTHING
    kept = np.where(is_empty, 1.0 - np.abs(s - t).max(axis=1), kept)
    kept[np.all(r == x, axis=(1, 2))] = 1.0
    return np.asarray(np.where(is_broken, 0.0, np.clip(kept, 0.0, 1.0)), dtype=np.float64)


def matched(part: Part, reference: Doubles, output: Doubles) -> Doubles:
    """Return the output with its rows, (samples, rows, columns), in the places of those of the reference that they are nearest to."""
    place = part.places[0]
    scale = _spans(reference, place)
    found = np.empty_like(output)
    for index, (rows, others) in enumerate(zip(reference / scale, output / scale, strict=True)):
        if np.array_equal(rows, others):
            found[index] = output[index]
            continue
        distance = np.abs(rows[:, None, :] - others[None, :, :]).max(axis=2)
        order = np.argsort(-rows[:, place], kind="stable")
        taken = np.empty(len(rows), dtype=np.int64)
        for row in order:
            nearest = int(distance[row].argmin())
            taken[row] = nearest
            distance[:, nearest] = np.inf
        found[index] = output[index][taken]
    return found


def _spans(rows: Doubles, place: int) -> Doubles:
    """Return what each column spans in the rows that say something, (columns,); the score's is 1."""
    says = rows[:, :, place] >= 0.5 * max(float(rows[:, :, place].max(initial=0.0)), 1e-9)
    known = rows[says]
    span = known.max(axis=0) - known.min(axis=0) if len(known) else np.zeros(rows.shape[2])
    whole = rows.max(axis=(0, 1)) - rows.min(axis=(0, 1))
    span = np.where(span > 0, span, np.where(whole > 0, whole, 1.0))
    span[place] = 1.0
    return np.asarray(span, dtype=np.float64)


def _are_classes(rows: Doubles, place: int) -> Booleans:
    """Return which columns hold whole numbers, few of them: classes."""
    whole = (rows == np.round(rows)).all(axis=(0, 1)) & (rows.min(axis=(0, 1)) >= -1)
    whole[place] = False
    return np.asarray(whole, dtype=np.bool_)
