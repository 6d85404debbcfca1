r"""Scores of classes: logits, and probabilities that sum to 1; of a sample, of its tokens, of the frames of a CTC head, of pixels.

Evidence: a Softmax or LogSoftmax, rows that sum to 1, a name, labels; a linear layer may end an embedding or boxes as well. Judged by
agreement of the best class, a share where a sample has several predictions. Where that can hardly fail (two classes, or samples of one
class only), 1 - max |change of a probability| is judged too; else, of one prediction a sample,
how likely its class is to stay. Probes take KL(p || q).
"""

from __future__ import annotations

import numpy as np

from calibration.accuracy.kinds.evidence import Evidence, of_rows
from calibration.accuracy.kinds.part import Array, Booleans, Doubles, JudgedOutput, Part
from calibration.accuracy.measures.softmax import log_softmax
from calibration.accuracy.metrics import CLASSES, SCORES_OF_CLASSES, OutputKind

_SMALLEST_PROBABILITY = 1e-12
NAMES_OF_LOGITS = ("logit", "cls_score", "class_score")
NAMES_OF_CLASSES = ("prob", "class", "cls", "label", "score", "pred")


def class_parts(kind: OutputKind, evidence: Evidence) -> tuple[Part, ...]:
    """Return the part of an output that is read as scores of classes."""
    axis = evidence.sum_axis if kind is OutputKind.PROBABILITIES else evidence.class_axis
    axis = axis if axis is not None and evidence.values.shape[axis] > 1 else evidence.last_axis
    part = Part(kind, None if axis == evidence.last_axis else axis)
    rows = in_rows(part, evidence.values)
    best = rows.argmax(axis=-1)
    return (Part(kind, part.axis, judges_change=rows.shape[-1] == 2 or bool(best.size and best.min() == best.max())),)


def in_rows(part: Part, values: Array) -> Doubles:
    """Return the values as (samples, predictions of a sample, classes), float64."""
    known = np.asarray(values, dtype=np.float64)
    if part.axis is None:
        longer = [size for size in known.shape[1:] if size > 1]
        return known.reshape(len(known), -1, longer[-1] if longer else 1)
    return part.in_columns(known)


def class_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return the share of predictions of each sample with the reference's class, and no more than its probabilities kept."""
    r, x = in_rows(part, reference), in_rows(part, output)
    same = (r.argmax(axis=-1) == x.argmax(axis=-1)) & ~np.isnan(x).any(axis=-1)
    weight = weights_of(counted, same.shape[1], len(same))
    found = (same * weight).sum(axis=1) / weight.sum(axis=1)
    found[(same | (weight == 0)).all(axis=1)] = 1.0
    if part.judges_change:
        p, q = (np.exp(log_softmax(rows)) if part.kind is OutputKind.LOGITS else rows for rows in (r, x))
        change = np.nan_to_num(np.abs(p - q).max(axis=-1), nan=1.0)
        found = np.minimum(found, 1.0 - (np.minimum(change, 1.0) * weight).sum(axis=1) / weight.sum(axis=1))
    elif same.shape[1] == 1:
        found = np.minimum(found, _chance_to_stay(r[:, 0], x[:, 0], logarithmic=part.kind is OutputKind.PROBABILITIES))
    return np.asarray(found, dtype=np.float64)


def _chance_to_stay(r: Doubles, x: Doubles, *, logarithmic: bool) -> Doubles:
    """Return how many of the changes of the distance between best and next class, of all samples, leave each sample's class as it is.

    A flip is a coin, the margin beside it a measurement: a sample that kept its class by a hair counts in part.
    """
    if logarithmic:
        r, x = (np.log(np.maximum(rows, _SMALLEST_PROBABILITY)) for rows in (r, x))
    best = r.argmax(axis=1)[:, None]
    others = np.ones(r.shape, dtype=np.bool_)
    np.put_along_axis(others, best, False, axis=1)
    with np.errstate(invalid="ignore"):
        before, after = (np.take_along_axis(rows, best, axis=1)[:, 0] - rows.max(axis=1, where=others, initial=-np.inf) for rows in (r, x))
        changes = after - before
    changes = np.sort(changes[~np.isnan(changes)])
    if not changes.size:
        return np.ones(len(r))
    return np.asarray(1.0 - np.searchsorted(changes, -before) / len(changes), dtype=np.float64)


def weights_of(counted: Booleans | None, predictions: int, samples: int) -> Doubles:
    """Return the weight of each prediction, (samples, predictions): 1 where it counts; a sample of which none counts has all.

    Args:
        counted: (samples, positions); ``predictions`` is a multiple of the positions; None: all count.
        predictions: Of a sample.
        samples: Of the set.
    """
    if counted is None or predictions % counted.shape[1]:
        return np.ones((samples, predictions))
    weight = np.repeat(counted.astype(np.float64), predictions // counted.shape[1], axis=1)
    return np.where(weight.any(axis=1, keepdims=True), weight, 1.0)


def classes_last(judged: JudgedOutput, values: Array) -> Array:
    """Return the values of an output, (samples, ...), with their classes on the last axis, for measures that read them there."""
    axis = _class_part(judged).axis
    return values if axis is None else np.moveaxis(values, axis, -1)


def reading_of_classes(judged: JudgedOutput, values: Array) -> str | None:
    """Return what a measure of classes takes an output for, in words; None where that is what anybody would take it for.

    Args:
        judged: How the output is judged by kind.
        values: The float model's, (samples, ...).
    """
    axis = _class_part(judged).axis
    if axis is not None:
        return f"scores of {values.shape[axis]} classes, on axis {axis}, for each of {values[0].size // values.shape[axis]} places"
    if any(kind in CLASSES for kind in judged.kinds):
        return None
    return f"scores of {in_rows(Part(OutputKind.LOGITS), values[:1]).shape[-1]} classes, on the last axis, which it seems not to hold"


def _class_part(judged: JudgedOutput) -> Part:
    return next((part for part in judged.parts if part.kind in SCORES_OF_CLASSES), Part(OutputKind.LOGITS))


def is_one_row(evidence: Evidence) -> bool:
    """Return whether a sample has one row of values."""
    return of_rows(evidence.shape) == 1
