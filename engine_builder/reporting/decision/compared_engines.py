"""The engines of a job as a reader compares them: one latency and one probability each, wherever they are told.

An engine that was built and timed for the verdict counts with that timing and that verdict, all others with what the search measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from calibration.accuracy.verdict import AccuracyVerdict, Answer
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.report_body import ReportBody

HALF = 0.5  # of the risk: an engine that is safer by less is no choice of its own
LEAST_RISK = 0.01  # below it a probability is no better than what it assumes
SPREADS = 2.0  # of the timing, by which another engine is faster


@dataclass(frozen=True, slots=True)
class ComparedEngine:
    """A trial that was built, scored and timed."""

    trial: Trial
    ratio: float  # latency / the baseline's
    spread: float  # of ``ratio``; 0 where latency is predicted
    over: float  # probability of being over the budget, 0-1
    verdict: AccuracyVerdict | None  # None of an engine that was no finalist

    @property
    def is_met(self) -> bool:
        """Whether the budget is met with the verdict's confidence."""
        return self.verdict is not None and self.verdict.answer is Answer.MET

    @property
    def score(self) -> float:
        """The mean score."""
        if self.verdict is not None:
            return self.verdict.engine
        assert self.trial.on_all is not None  # ``compared_engines`` takes no other
        return self.trial.on_all.score


def as_timed_last(body: ReportBody) -> tuple[Trial, ...]:
    """Return the trials, those of the final timing with the latency that it found: one speed-up for each engine, wherever it stands."""
    trials = []
    for trial in body.trials:
        last, latency = body.final_timing.relative.get(trial.fingerprint), trial.latency
        if last is not None and latency is not None:
            found = body.final_timing.latency_ms.get(trial.fingerprint)
            median = latency.median_ms if found is None else found.median
            trial = replace(
                trial, latency=replace(latency, ratio=last.ratio, ratio_mad=last.mad, ratio_error=_error(last.mad), median_ms=median)
            )
        trials.append(trial)
    return tuple(trials)


def compared_engines(body: ReportBody) -> tuple[ComparedEngine, ...]:
    """Return all engines with quantized or folded layers that were scored and timed, the fastest first."""
    verdicts = {one.fingerprint: one.verdict for one in body.finalists}
    found = []
    for trial in as_timed_last(body):
        if trial.latency is None or trial.on_all is None or trial.failure is not None or trial.order == "baseline":
            continue
        verdict = verdicts.get(trial.fingerprint)
        over = trial.on_all.probability_over
        if verdict is not None:
            over = verdict.probability_over_budget
        elif over is None:
            over = 0.0 if trial.on_all.excess >= 0.0 else 1.0
        found.append(ComparedEngine(trial, trial.latency.ratio, trial.latency.ratio_mad, over, verdict))
    return tuple(sorted(found, key=lambda one: one.ratio))


def chosen_of(engines: Sequence[ComparedEngine], chosen: str | None) -> ComparedEngine | None:
    """Return the engine that was chosen, None where that is the baseline.

    Args:
        engines: All of them.
        chosen: Its fingerprint.
    """
    return next((one for one in engines if one.trial.fingerprint == chosen), None)


def safer_neighbour(engines: Sequence[ComparedEngine], chosen: ComparedEngine) -> ComparedEngine | None:
    """Return the fastest engine that is met with confidence, else that has half of the risk or less; None of none, or where none is needed.

    Args:
        engines: The fastest first.
        chosen: What was chosen.
    """
    if chosen.is_met or chosen.over < LEAST_RISK:
        return None
    others = [one for one in engines if one is not chosen and one.ratio < 1.0]
    met = next((one for one in others if one.is_met), None)
    return met or next((one for one in others if one.over <= HALF * chosen.over), None)


def faster_engines(engines: Sequence[ComparedEngine], chosen: ComparedEngine) -> list[ComparedEngine]:
    """Return the engines that are faster beyond the spread of the timing, the one with the least risk first.

    Args:
        engines: All of them.
        chosen: What was chosen.
    """
    faster = [one for one in engines if one.ratio < chosen.ratio - SPREADS * max(chosen.spread, one.spread)]
    return sorted(faster, key=lambda one: (one.over, -one.ratio))


def _error(mad: float) -> float:
    """Return about the standard error of the final timing, whose nine groups have this deviation."""
    return 1.4826 * mad / 3.0
