"""The front: trials that no other trial beats in both accuracy and latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine_builder.records.trial import Accuracy, Trial

MAX_FINALISTS = 6


def pareto_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials that no other beats, fastest first; of equal ones the earliest.

    Accuracy is the budget slack on every validation sample, latency the ratio to the baseline of the same run.
    """
    timed = [trial for trial in trials if trial.on_all is not None and trial.latency is not None]
    timed.sort(key=lambda trial: (_ratio(trial), -_slack(trial), trial.index))
    front: list[Trial] = []
    for trial in timed:
        if not front or _slack(trial) > _slack(front[-1]):
            front.append(trial)
    return tuple(front)


def _ratio(trial: Trial) -> float:
    assert trial.latency is not None
    return trial.latency.ratio


def _slack(trial: Trial) -> float:
    assert trial.on_all is not None
    return trial.on_all.excess


def finalists(trials: Sequence[Trial], seen: Callable[[Trial], Accuracy | None]) -> tuple[Trial, ...]:
    """Return at most MAX_FINALISTS trials to be judged, safest first.

    They meet the budget on the samples that the search saw (those kept for the verdict stay untouched), beat the baseline, and each is
    faster than all that are safer, where safer means a smaller divergence of the outputs: it orders engines far more finely than a metric
    of 0 and 1 does. The fastest ones are kept.

    Args:
        trials: All trials.
        seen: Which accuracy of a trial the search looked at.
    """
    timed = [trial for trial in trials if trial.low_layers and trial.latency is not None and trial.loss is not None]
    worthy = [trial for trial in timed if _ratio(trial) < 1.0 and (accuracy := seen(trial)) is not None and accuracy.met]
    worthy.sort(key=lambda trial: (trial.loss or 0.0, _ratio(trial), trial.index))
    kept: list[Trial] = []
    for trial in worthy:
        if not kept or _ratio(trial) < _ratio(kept[-1]):
            kept.append(trial)
    return tuple(kept[-MAX_FINALISTS:])
