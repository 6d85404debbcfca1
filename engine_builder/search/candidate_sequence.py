"""A sequence of candidates that the search bisects, and when a trial says that its predictions are wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine_builder.bisection import Bisection
from engine_builder.records.trial import Trial
from engine_builder.search.search_space import QuantizedLayers

ABOUT = 0.15  # relative error of a predicted latency beyond which a candidate is not tried where an engine must be fast enough
BEYOND = 2.0  # standard errors by which a trial is slower than predicted, to contradict the prediction


@dataclass(frozen=True, slots=True)
class CandidateSequence:
    """Assignments of growing cost in accuracy, and the latency that is predicted for each as a ratio to the baseline's."""

    name: str
    rungs: tuple[QuantizedLayers, ...]
    ratios: tuple[float, ...]
    errors: tuple[float, ...] = ()  # standard error of each ratio; empty where it is not known

    def __post_init__(self) -> None:
        """Check that there is a prediction for every candidate."""
        if len(self.rungs) != len(self.ratios):
            raise ValueError(f"candidate sequence {self.name!r} has {len(self.rungs)} candidates and {len(self.ratios)} predictions")
        if self.errors and len(self.rungs) != len(self.errors):
            raise ValueError(f"candidate sequence {self.name!r} has {len(self.rungs)} candidates and {len(self.errors)} errors")


def is_contradicted(sequence: CandidateSequence, candidate: int, trial: Trial) -> bool:
    """Return whether a trial was slower than predicted, beyond the errors of the prediction and of the trial's own timing.

    Args:
        sequence: Where it comes from; without errors nothing contradicts it.
        candidate: Its place there, from 1.
        trial: What came of it.
    """
    if not sequence.errors or trial.latency is None:
        return False
    error = math.hypot(sequence.errors[candidate - 1], trial.latency.ratio_error)
    return trial.latency.ratio - sequence.ratios[candidate - 1] > BEYOND * error


def contradiction(sequence: CandidateSequence, candidate: int) -> tuple[float, ...]:
    """Return the ratio above which a trial contradicts the prediction of a candidate, from 1; none without errors."""
    return (sequence.ratios[candidate - 1] + BEYOND * sequence.errors[candidate - 1],) if sequence.errors else ()


def opened(sequence: CandidateSequence, needed: float | None) -> Bisection:
    """Return what is to be bisected: all of a sequence, or what is predicted to be about as fast as wanted.

    Args:
        sequence: The candidates.
        needed: The largest ratio that is fast enough; None where the fastest engine inside the budget is looked for.
    """
    ratios = sequence.ratios
    if needed is None or not any(ratios):
        return Bisection(0, len(ratios))
    low = next((place for place, ratio in enumerate(ratios) if ratio <= needed * (1.0 + ABOUT)), len(ratios))
    high = next((place for place in range(low, len(ratios)) if ratios[place] < needed * (1.0 - ABOUT)), len(ratios))
    return Bisection(low, high)
