"""The measures that users of each kind read, written apart from the product's, so that it is not checked by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # COCO's
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class Boxes:
    """What is found, or what is there, in one picture."""

    corners: Floats  # (boxes, 4): left, top, right, bottom
    scores: Floats  # (boxes,)
    classes: Integers  # (boxes,)


def average_precision(found: Sequence[Boxes], truth: Sequence[Boxes], thresholds: Sequence[float] = IOU_THRESHOLDS) -> float:
    """Return the mean, over classes that are there and IoU thresholds, of precision interpolated at 101 recalls."""
    classes = sorted({int(one) for boxes in truth for one in boxes.classes})
    return float(np.mean([_one_precision(found, truth, one, threshold) for one in classes for threshold in thresholds]))


def suppressed(boxes: Boxes, *, overlap: float = 0.45) -> Boxes:
    """Return the boxes that no box of the same class and a higher score overlaps by more than ``overlap`` (IoU)."""
    left = list(np.argsort(-boxes.scores, kind="stable"))
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        ious = iou(boxes.corners[[best]], boxes.corners[left])[0] if left else ()
        left = [one for one, shared in zip(left, ious, strict=True) if shared <= overlap or boxes.classes[one] != boxes.classes[best]]
    return Boxes(boxes.corners[kept], boxes.scores[kept], boxes.classes[kept])


def iou(first: Floats, second: Floats) -> Floats:
    """Return intersection over union, (first, second), of corners (n, 4)."""
    low, high = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1) for corners in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-9), dtype=np.float32)


def mean_iou(found: Integers, truth: Integers, classes: int) -> float:
    """Return the mean over classes of the intersection over the union of their pixels in all pictures together."""
    shares = []
    for one in range(classes):
        mine, theirs = found == one, truth == one
        if (union := int(np.count_nonzero(mine | theirs))) > 0:
            shares.append(np.count_nonzero(mine & theirs) / union)
    return float(np.mean(shares))


def ctc_strings(frames: Floats, *, blank: int = 0) -> list[tuple[int, ...]]:
    """Return the greedy reading of (samples, time, classes): best class of each frame, repeats merged, blanks dropped."""
    strings = []
    for best in frames.argmax(axis=2):
        changes = [int(one) for index, one in enumerate(best) if index == 0 or one != best[index - 1]]
        strings.append(tuple(one for one in changes if one != blank))
    return strings


def exact_matches(found: Sequence[Sequence[int]], truth: Sequence[Sequence[int]]) -> float:
    """Return the share of sequences that are equal."""
    return float(np.mean([tuple(mine) == tuple(theirs) for mine, theirs in zip(found, truth, strict=True)]))


def characters_kept(found: Sequence[Sequence[int]], truth: Sequence[Sequence[int]]) -> float:
    """Return 1 less the edits, over all sequences, a character of the truth."""
    edits = sum(edit_distance(mine, theirs) for mine, theirs in zip(found, truth, strict=True))
    return 1 - edits / max(sum(map(len, truth)), 1)


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the fewest insertions, deletions and replacements that make one from the other (Levenshtein)."""
    row = list(range(len(second) + 1))
    for index, mine in enumerate(first, start=1):
        above, row[0] = row[0], index
        for place, theirs in enumerate(second, start=1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (mine != theirs))
    return row[-1]


def nearest_neighbours(queries: Floats, gallery: Floats) -> Integers:
    """Return, for each query, the place of the gallery's vector with the largest cosine."""
    mine, theirs = (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) for vectors in (queries, gallery))
    return np.asarray((mine @ theirs.T).argmax(axis=1), dtype=np.int64)


def decisions_kept(found: Floats, truth: Floats, *, threshold: float = 0.5) -> float:
    """Return the share of samples all of whose scores are on the same side of the threshold; both (samples, scores)."""
    return float(np.mean(np.all((found > threshold) == (truth > threshold), axis=1)))


def regression_quality(found: Floats, truth: Floats) -> float:
    """Return 1 less the worst column's root mean squared error, in units of that column's deviation in the truth."""
    errors = np.sqrt(np.mean((found.astype(np.float64) - truth) ** 2, axis=0)) / truth.std(axis=0)
    return float(1 - errors.max())


def _one_precision(found: Sequence[Boxes], truth: Sequence[Boxes], wanted: int, threshold: float) -> float:
    hits: list[tuple[float, bool]] = []
    there = 0
    for mine, theirs in zip(found, truth, strict=True):
        corners, targets = mine.corners[mine.classes == wanted], theirs.corners[theirs.classes == wanted]
        scores = mine.scores[mine.classes == wanted]
        there += len(targets)
        free, shared = np.ones(len(targets), dtype=bool), iou(corners, targets)
        for one in np.argsort(-scores, kind="stable"):
            candidates = np.where(free, shared[one], -1.0)
            best = int(candidates.argmax()) if len(targets) else -1
            is_hit = best >= 0 and candidates[best] >= threshold
            if is_hit:
                free[best] = False
            hits.append((float(scores[one]), is_hit))
    order = sorted(hits, key=lambda hit: -hit[0])
    right = np.cumsum([is_hit for _, is_hit in order])
    if not len(right) or not there:
        return 0.0
    precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
    places = np.searchsorted(right / there, _RECALLS - 1e-12)
    return float(np.mean([precision[place] if place < len(precision) else 0.0 for place in places]))
