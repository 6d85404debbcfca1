"""Measures that see all outputs of a model at once, and what is asked of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.options import MeasureOptions

Array: TypeAlias = NDArray[np.generic]
Scores: TypeAlias = NDArray[np.float64]
JointScore: TypeAlias = Callable[[Array | None, Sequence[Array], Sequence[Array], MeasureOptions], Scores]


def _nothing_to_say(reference: Sequence[Array], options: MeasureOptions) -> str | None:
    return None


def _nothing_to_refuse(reference: Sequence[Array], options: MeasureOptions) -> None:
    return None


@dataclass(frozen=True, slots=True)
class JointMeasure:
    """One score a sample of all the outputs that it reads; each function takes the float model's outputs, each (samples, ...)."""

    score: JointScore  # (labels or None, float model's outputs, an engine's, options) -> (samples,)
    reads: Callable[[Sequence[Array], MeasureOptions], tuple[int, ...]]  # which of the outputs
    options: frozenset[str] = frozenset()  # names of those that make a difference
    words: Callable[[Sequence[Array], MeasureOptions], str | None] = _nothing_to_say  # what the outputs were taken for
    check: Callable[[Sequence[Array], MeasureOptions], None] = _nothing_to_refuse  # raises where no engine could be worse
    reads_whole_numbers: bool = False  # outputs of whole numbers beside those of floats too
    tells_change: bool = False  # the largest change of a value is told beside the score


def one_by_one(
    measure: Callable[[Array, Array, MeasureOptions], Scores],
    labelled: Callable[[Array, Array, Array, MeasureOptions], Scores] | None = None,
) -> JointScore:
    """Return the score of the worst of several outputs, each measured by itself; with labels that of the first.

    Args:
        measure: (float model's output, an engine's, options) -> (samples,).
        labelled: (labels, float model's output, an engine's, options) -> (samples,); None: labels are not read.
    """

    def score(labels: Array | None, reference: Sequence[Array], outputs: Sequence[Array], options: MeasureOptions) -> Scores:
        if labels is not None and labelled is not None:
            return labelled(labels, reference[0], outputs[0], options)
        worst: Scores = np.min([measure(r, x, options) for r, x in zip(reference, outputs, strict=True)], axis=0)
        return worst

    return score


def reading(is_meant: Callable[[Array], bool]) -> Callable[[Sequence[Array], MeasureOptions], tuple[int, ...]]:
    """Return what reads the outputs of some form, (samples, ...); the first where none is, of which the measure says what it lacks."""

    def reads(reference: Sequence[Array], options: MeasureOptions) -> tuple[int, ...]:
        return tuple(index for index, array in enumerate(reference) if is_meant(array)) or (0,)

    return reads
