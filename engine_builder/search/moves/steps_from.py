"""From which measured engines the search takes steps, and how far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine_builder.records.trial import Accuracy, Trial

NEAREST = 3  # engines outside the budget that steps start from
LEAST_STEP = 0.01  # of the baseline's latency, for a step to be worth a trial
LOSS_ALLOWED = 1.5  # times the largest loss inside the budget, at most: beyond that a step is not tried
LOSS_HOPED = 0.5  # of the least loss outside the budget, where none was inside


@dataclass(frozen=True, slots=True)
class StepsFrom:
    """Which steps from measured engines are worth a trial."""

    starts: tuple[str, ...]  # fingerprints of trials
    most_loss: float  # beyond which no engine is wanted
    below: float  # ratio to the baseline's latency


def steps_from(trials: Sequence[Trial], seen: Callable[[Trial], Accuracy | None]) -> StepsFrom:
    """Return where steps start: the fastest engine inside the budget, and of the faster ones outside those that miss it least.

    Args:
        trials: All trials.
        seen: Which accuracy of a trial the search may look at.
    """
    timed = [
        (trial, trial.latency.ratio, accuracy) for trial in trials if trial.latency is not None and (accuracy := seen(trial)) is not None
    ]
    met = [(trial, ratio) for trial, ratio, accuracy in timed if accuracy.met]
    missed = [(trial, ratio, accuracy.excess) for trial, ratio, accuracy in timed if not accuracy.met]
    best = min((ratio for _, ratio in met), default=1.0)
    starts = [trial for trial, ratio in met if ratio == best][:1]
    nearest = sorted((one for one in missed if one[1] < best), key=lambda one: (-one[2], one[0].index))[:NEAREST]
    inside = max((trial.loss or 0.0 for trial, _ in met), default=0.0)
    outside = min((trial.loss or 0.0 for trial, _, _ in missed), default=0.0)
    names = tuple(trial.fingerprint for trial in (*starts, *(trial for trial, _, _ in nearest)))
    return StepsFrom(names, most_loss(inside, outside), best - LEAST_STEP)


def most_loss(inside: float, outside: float) -> float:
    """Return the loss beyond which an engine is hardly inside the budget.

    Args:
        inside: The largest loss of an engine inside, 0 where there is none.
        outside: The least of an engine outside, 0 where there is none.
    """
    if inside == 0.0:
        return LOSS_HOPED * outside
    if outside == 0.0:
        return LOSS_ALLOWED * inside
    return min(LOSS_ALLOWED * inside, math.sqrt(inside * max(inside, outside)))
