"""How clearly each sample was decided, by the float model and by an engine.

A *margin* is positive where the decision is right and negative where it is wrong, so that the 0/1 score of a sample is the sign of its
margin. Right is what the float model decided (agreement), or the label. With z the scores of the classes:

1. agreement:            z of the float model's best class - the highest z of any other class;
2. top-k against labels: z of the label - the k-th highest z of any other class;
3. a threshold t:        z - t or t - z, whichever is positive where the decision is right.

The margin of both runs is of the same class, against whatever class comes next in each: a third class that wins is a change, too.
Probabilities saturate near 0 and 1, where a difference says nothing about those near the decision; they are compared by their logarithm,
log(p + e), or by their logit for a threshold, with e = 1e-3, the resolution below which a score that was rounded to 8 bits says nothing.
Equal scores are decided as the metrics decide them, and such a margin is next to nothing, on that side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.intervals import PairedTable
from calibration.accuracy.measures.classes import agreement, by_class, topk

Array = NDArray[np.generic]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DecisionMargins:
    """Margins of the same decisions, one a sample; 0 is no margin, and those of the float model are finite."""

    reference: Values  # (samples,), of the float model
    engine: Values  # (samples,), -inf where the engine's scores are not finite
    can_gain: bool  # whether the float model can be wrong; it cannot where it is what the engine is compared with

    def __post_init__(self) -> None:
        """Refuse what are no margins of the same samples."""
        if self.reference.ndim != 1 or self.reference.shape != self.engine.shape or not self.reference.size:
            raise ValueError(f"expected margins (samples,) of the same samples, found {self.reference.shape} and {self.engine.shape}")
        if not np.isfinite(self.reference).all() or np.isnan(self.engine).any():
            raise ValueError("margins must be numbers, and those of the float model finite")
        if not (self.reference.all() and self.engine.all()):
            raise ValueError("a margin of 0 is neither right nor wrong: give ties the sign of their score")
        if not self.can_gain and (self.reference < 0).any():
            raise ValueError("the float model decides what is right here, but some of its margins are negative")

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self.reference)

    @property
    def table(self) -> PairedTable:
        """How many samples both, only the float model, only the engine or neither decides right."""
        was, is_now = self.reference > 0, self.engine > 0
        both, lost, gained = (int(np.count_nonzero(cell)) for cell in (was & is_now, was & ~is_now, ~was & is_now))
        return PairedTable(both, lost, gained, len(self) - both - lost - gained)

    def of(self, samples: NDArray[np.int64]) -> DecisionMargins:
        """Return the margins of these samples, by index."""
        return DecisionMargins(self.reference[samples], self.engine[samples], self.can_gain)


def agreement_margins(reference: Array, output: Array, *, probabilities: bool = False) -> DecisionMargins:
    """Return the margins of the float model's own decisions.

    Args:
        reference: (samples, ..., classes) with one decision a sample, the float model's scores.
        output: The engine's, of the same shape.
        probabilities: Whether the scores are probabilities, else logits.

    Raises:
        ValueError: A sample holds several decisions, or whole numbers, which have no margins.
    """
    scores, changed = _rows(reference), _rows(output)
    best = scores.argmax(axis=1)
    return DecisionMargins(
        _signed(_margins(scores, best, 1, probabilities), np.ones(len(scores), dtype=np.bool_), is_reference=True),
        _signed(_margins(changed, best, 1, probabilities), agreement(reference, output) == 1.0),
        can_gain=False,
    )


def label_margins(labels: Array, reference: Array, output: Array, *, k: int = 1, probabilities: bool = False) -> DecisionMargins:
    """Return the margins of the labels: positive where the label is among the ``k`` best classes.

    Args:
        labels: (samples,) class indices.
        reference: (samples, classes), the float model's scores.
        output: The engine's, of the same shape.
        k: How many classes may be named, at least 1 and less than there are.
        probabilities: Whether the scores are probabilities, else logits.

    Raises:
        InputError: The labels do not fit the scores.
        ValueError: A sample holds several decisions, or whole numbers, which have no margins.
    """
    was, is_now = topk(labels, reference, k=k) == 1.0, topk(labels, output, k=k) == 1.0
    wanted = np.asarray(labels).reshape(-1).astype(np.int64)
    return DecisionMargins(
        _signed(_margins(_rows(reference), wanted, k, probabilities), was, is_reference=True),
        _signed(_margins(_rows(output), wanted, k, probabilities), is_now),
        can_gain=True,
    )


def threshold_margins(
    reference: Array, output: Array, threshold: float, *, labels: Array | None = None, probabilities: bool = False
) -> DecisionMargins:
    """Return the margins of a decision by a threshold: yes where the value is at least that.

    Args:
        reference: (samples,) or (samples, 1, ...), the float model's values.
        output: The engine's, of the same shape.
        threshold: Where a yes begins.
        labels: (samples,), 1 where yes is right, else 0; None if the float model's decision is right.
        probabilities: Whether the values, and the threshold, lie in 0..1.

    Raises:
        ValueError: A sample holds several values.
    """
    if reference.size != len(reference) or output.shape != reference.shape:
        raise ValueError(f"expected one value a sample, found shapes {reference.shape} and {output.shape}")
    values, changed = (array.reshape(-1).astype(np.float64) for array in (reference, output))
    said, says = values >= threshold, changed >= threshold
    right = said if labels is None else np.asarray(labels).reshape(-1) == 1

    def margins(of: Values) -> Values:
        scaled, zero = (_logit(of), float(_logit(np.array(threshold)))) if probabilities else (of, threshold)
        return np.where(right, scaled - zero, zero - scaled)

    return DecisionMargins(
        _signed(margins(values), said == right, is_reference=True),
        _signed(margins(changed), (says == right) & ~np.isnan(changed)),
        can_gain=labels is not None,
    )


def _rows(scores: Array) -> Values:
    if scores.dtype.kind != "f":
        raise ValueError(f"decisions have no margins: expected scores in floating point, found {scores.dtype}")
    rows = by_class(scores)
    if rows.shape[1] != 1:
        raise ValueError(f"expected one decision a sample, found scores of shape {scores.shape}")
    return rows[:, 0]


def _margins(rows: Values, wanted: NDArray[np.int64], k: int, probabilities: bool) -> Values:
    """Return the wanted class's score less the k-th highest of the others, (samples,)."""
    scores = np.log(np.maximum(rows, 0.0) + _RESOLUTION) if probabilities else rows.copy()
    index = np.arange(len(scores))
    own = scores[index, wanted].copy()
    scores[index, wanted] = -np.inf
    with np.errstate(invalid="ignore"):
        return np.asarray(own - np.partition(scores, -k, axis=1)[:, -k], dtype=np.float64)


def _signed(margins: Values, is_right: NDArray[np.bool_], *, is_reference: bool = False) -> Values:
    """Return the margins with the signs that the scores have; what is not finite is far off on that side."""
    far = _FAR if is_reference else np.inf
    known = np.nan_to_num(margins, nan=0.0, posinf=far, neginf=-far)
    known = np.where(np.isnan(margins), np.where(is_right, far, -far), known)
    return np.where(is_right, np.maximum(known, _TIE), np.minimum(known, -_TIE))


def _logit(p: Values) -> Values:
    return np.asarray(np.log(p + _RESOLUTION) - np.log(1.0 - p + _RESOLUTION), dtype=np.float64)


_RESOLUTION = 1e-3
_TIE = 1e-300  # a margin that has a sign and no size
_FAR = 1e150  # of a float model's score that is infinite: its differences are finite
