"""The front: trials that no other trial beats in both accuracy and latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain

from calibration.accuracy.budget import Budget
from calibration.accuracy.offers.offered_budgets import is_inside
from engine_builder.records.trial import Accuracy, Trial
from engine_builder.search.search_space import is_one_format
from engine_builder.search.shipping_rule import is_worth_it
from engine_builder.timing import ERRORS, MIN_GAIN, RelativeLatency

MAX_FINALISTS = 6
MAX_OFFERED = 5


def pareto_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials that no other beats, fastest first; of equal ones the earliest.

    Accuracy is the budget slack on every validation sample, latency the ratio to the baseline of the same run.
    """
    timed = [trial for trial in trials if trial.on_all is not None and trial.latency is not None]
    timed.sort(key=lambda trial: (ratio_of(trial), -_slack(trial), trial.index))
    front: list[Trial] = []
    for trial in timed:
        if not front or _slack(trial) > _slack(front[-1]):
            front.append(trial)
    return tuple(front)


def ratio_of(trial: Trial) -> float:
    """Return the latency of a trial that was timed, as a ratio to the baseline's."""
    assert trial.latency is not None
    return trial.latency.ratio


def _slack(trial: Trial) -> float:
    assert trial.on_all is not None
    return trial.on_all.excess


def finalists(trials: Sequence[Trial], seen: Callable[[Trial], Accuracy | None]) -> tuple[Trial, ...]:
    """Return at most MAX_FINALISTS trials to be judged, safest first.

    They meet the budget on the samples that the search saw (those kept for the verdict stay untouched), beat the baseline, and each may be
    faster than all that are safer: it was, or the errors of both timings leave it open that it is faster by ``MIN_GAIN``. Safer means a
    smaller divergence of the outputs: it orders engines far more finely than a metric of 0 and 1 does. The fastest ones are kept.

    Args:
        trials: All trials.
        seen: Which accuracy of a trial the search looked at.
    """
    timed = [trial for trial in trials if trial.is_candidate and trial.latency is not None and trial.loss is not None]
    worthy = [trial for trial in timed if ratio_of(trial) < 1.0 and (accuracy := seen(trial)) is not None and accuracy.met]
    worthy.sort(key=lambda trial: (trial.loss or 0.0, ratio_of(trial), trial.index))
    kept: list[Trial] = []
    for trial in worthy:
        if not kept or _may_be_faster(trial, min(kept, key=ratio_of)):
            kept.append(trial)
    return fastest_of(kept, MAX_FINALISTS)


def beaten(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the fingerprints of the trials whose kept engines can no longer ship or be offered, whatever other trials will find.

    Another one is at least as accurate and diverges no more, on all samples and on those that the search sees, and is faster beyond the
    errors of both timings. One-format engines stay: they are profiled later.

    Args:
        trials: So far.
    """
    kept = [trial for trial in trials if trial.engine is not None and not is_one_format(trial.order)]
    return tuple(trial.fingerprint for trial in kept if any(_beats(other, trial) for other in trials if other.is_candidate))


def _beats(other: Trial, trial: Trial) -> bool:
    if other.latency is None or trial.latency is None or other.loss is None or trial.loss is None:
        return False
    seen = ((other.on_all, trial.on_all), (other.on_search, trial.on_search))
    as_accurate = all(one is not None and two is not None and _is_as_sure(one, two) for one, two in seen)
    error = ERRORS * math.hypot(other.latency.ratio_error, trial.latency.ratio_error)
    return as_accurate and other.loss <= trial.loss and ratio_of(other) + error + MIN_GAIN < ratio_of(trial)


def _is_as_sure(one: Accuracy, two: Accuracy) -> bool:
    """Return whether an engine is at least as accurate as another, however sure one asks to be."""
    slacks = [accuracy.excess if accuracy.likely_slack is None else accuracy.likely_slack for accuracy in (one, two)]
    return one.excess >= two.excess and slacks[0] >= slacks[1] and (one.probability_over or 0.0) <= (two.probability_over or 0.0)


def fastest_of(trials: Sequence[Trial], most: int) -> tuple[Trial, ...]:
    """Return the fastest of some timed trials, at most so many, in the order in which they are given."""
    names = {trial.fingerprint for trial in sorted(trials, key=ratio_of)[:most]}
    return tuple(trial for trial in trials if trial.fingerprint in names)


def _may_be_faster(trial: Trial, other: Trial) -> bool:
    """Return whether a trial was faster than another, or is so by ``MIN_GAIN`` as far as the errors of both timings tell."""
    assert trial.latency is not None
    assert other.latency is not None
    error = math.hypot(trial.latency.ratio_error, other.latency.ratio_error)
    return ratio_of(trial) < ratio_of(other) + max(0.0, ERRORS * error - MIN_GAIN * ratio_of(other))


def fast_enough(trials: Sequence[Trial], seen: Callable[[Trial], Accuracy | None], largest_ratio: float) -> tuple[Trial, ...]:
    """Return at most MAX_FINALISTS trials that are fast enough, the most accurate first; each is faster than all that are more accurate.

    Of those with one accuracy, the one whose outputs diverge less counts as more accurate.

    Args:
        trials: All trials.
        seen: Which accuracy of a trial the search looked at.
        largest_ratio: Latency that is fast enough, to the baseline's.
    """
    timed = [trial for trial in trials if trial.is_candidate and trial.latency is not None and trial.loss is not None]
    found = [(trial, accuracy) for trial in timed if ratio_of(trial) <= largest_ratio and (accuracy := seen(trial)) is not None]
    found.sort(key=lambda item: (-item[1].excess, item[0].loss or 0.0, ratio_of(item[0]), item[0].index))
    kept: list[Trial] = []
    for trial, _ in found:
        if not kept or ratio_of(trial) < ratio_of(kept[-1]):
            kept.append(trial)
    return tuple(kept[:MAX_FINALISTS])


def offered(
    trials: Sequence[Trial],
    seen: Callable[[Trial], Accuracy | None],
    latency: Mapping[str, RelativeLatency],
    budgets: Sequence[Budget],
    *,
    least_gain: float = MIN_GAIN,
    always: Collection[str] = (),
) -> tuple[Trial, ...]:
    """Return at most MAX_OFFERED trials that other budgets may want, safest first, whatever the job's own budget is.

    They beat the baseline, and no other is at least as good in all of: accuracy, divergence of the outputs, and latency. Safer means more
    accurate on the samples that the search saw; of those with one accuracy, a smaller divergence. Where there are more, those stay that
    are the fastest inside one of the budgets, then the most accurate.

    Args:
        trials: All trials.
        seen: Which accuracy of a trial the search looked at.
        latency: To the baseline's, by fingerprint, as far as it is known better than from the trial.
        budgets: What may be asked for.
        least_gain: Relative; a smaller one is within the error of the target's latencies.
        always: Fingerprints of trials that stay in any case.
    """
    known = [
        (trial, accuracy, trial.loss, relative.ratio)
        for trial in trials
        if trial.is_candidate and trial.loss is not None and (accuracy := seen(trial)) is not None
        if (relative := relative_to_baseline(trial, latency)) is not None
        and is_worth_it(relative, are_outputs_equal=trial.are_outputs_equal, least_gain=least_gain)
    ]
    known.sort(key=lambda item: (-item[1].excess, item[2], item[3], item[0].index))
    front: list[tuple[Trial, Accuracy, float, float]] = []
    for item in known:
        if item[0].fingerprint in always or not any(loss <= item[2] and ratio <= item[3] for _, _, loss, ratio in front):
            front.append(item)
    inside = ([item for item in front if is_inside(budget, item[1].baseline, item[1].score)] for budget in budgets)
    wanted = (min(fit, key=lambda item: item[3]) for fit in inside if fit)
    ordered = chain((item for item in front if item[0].fingerprint in always), wanted, front)
    kept = list(dict.fromkeys(trial.fingerprint for trial, _, _, _ in ordered))[:MAX_OFFERED]
    return tuple(trial for trial, _, _, _ in front if trial.fingerprint in kept)


def relative_to_baseline(trial: Trial, latency: Mapping[str, RelativeLatency]) -> RelativeLatency | None:
    """Return a trial's latency to the baseline's: as ``latency`` has it by its fingerprint, else as the trial found it."""
    own = None if trial.latency is None else RelativeLatency(trial.latency.ratio, trial.latency.ratio_mad, trial.latency.ratio_error)
    return latency.get(trial.fingerprint, own)
