"""How a job is watched while it runs: what whoever watches is told, and the form in which trials are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from calibration.accuracy.kinds.part import JudgedOutput
from engine_builder.records.trial import Trial
from engine_builder.search.measured_front import fast_enough, pareto_front


class Observer(Protocol):
    """Is shown how the job goes. Called again with the same values on a replay, so every call must be idempotent."""

    def entered(self, stage: str, progress: float) -> None:
        """Told that a part of the job begins: inspect, ranges, sensitivity, dependency, search, refine, routes or report."""

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        """Told how each compared output is taken, and why, before anything is probed."""

    def noted(self, text: str) -> None:
        """Told what the user should know before the job goes on; the report has it among its notes."""

    def foreseen(self, requests: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        """Told, before a trial runs, what finds out which trials may be asked for after it, for whoever can begin them.

        Args:
            requests: Yields requests of the stage ``trial``, the likeliest first, as far as they are known. Takes time, changes nothing.
        """

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        """Told all trials so far, in the form of the HTTP contract, and the index of the best."""


def public_trial(trial: Trial, largest_ratio: float | None = None) -> dict[str, object]:
    """Return a trial in the form of the HTTP contract.

    Args:
        trial: The trial.
        largest_ratio: Latency that is fast enough, to the baseline's; None where the accuracy budget decides.
    """
    latency = trial.latency
    public: dict[str, object] = {
        "index": trial.index,
        "fingerprint": trial.fingerprint,
        "order": trial.order,
        "low_layers": trial.low_layers,
        "accuracy": trial.on_all.score if trial.on_all is not None else None,
        "latency_ms": None if latency is None else {"median": latency.median_ms, "p95": latency.p95_ms or None, "runs": latency.runs},
        "ratio": None if latency is None else latency.ratio,
        "met": trial.met if largest_ratio is None else None,
        "failure": trial.failure,
        "seconds": trial.seconds,
    }
    return public if largest_ratio is None else {**public, "fast_enough": latency is not None and latency.ratio <= largest_ratio}


def best_index(trials: Sequence[Trial], largest_ratio: float | None = None) -> int | None:
    """Return the index of the fastest trial that meets the budget, or of the most accurate one that is fast enough.

    Args:
        trials: All trials, the baseline's first.
        largest_ratio: As for ``public_trial``.
    """
    if largest_ratio is None:
        found = pareto_front([trial for trial in trials if trial.met])
    elif largest_ratio >= 1.0:
        found = tuple(trials[:1])
    else:
        found = fast_enough(trials, lambda trial: trial.on_all, largest_ratio)
    return next((trial.index for trial in found), None)
