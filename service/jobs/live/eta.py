"""How long a running job will go on, about: by its progress, and by what its engines took to build and time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from service.jobs.records import Job, JobState


def eta_seconds(job: Job, now: datetime) -> int | None:
    """Return about how many seconds a running job has left; None of another job, or before there is anything to tell it by."""
    if job.state is not JobState.RUNNING or job.started_at is None or job.progress < _LEAST_PROGRESS_FOR_ETA:
        return None
    elapsed = (now - job.started_at).total_seconds()
    return max(0, round(max(elapsed * (1 - job.progress) / job.progress, _search_seconds(job, elapsed))))


def _search_seconds(job: Job, elapsed: float) -> float:
    """Return about how many seconds the search has left: where builds take minutes, trials take longer than all that came before."""
    engines = [trial for trial in job.trials if trial.get("low_layers")]
    took = [float(seconds) if isinstance(seconds := trial.get("seconds"), int | float) else 0.0 for trial in engines]
    if job.stage not in _SEARCHING or not any(took):
        return 0.0
    given = job.new.config.get("search")
    limits = given if isinstance(given, Mapping) else {}
    is_lossless = all(trial.get("met") for trial in engines)  # then only time is left to search for
    left: float = 1 if is_lossless else max(USUAL_TRIALS - len(job.trials), 1)
    if (most := limits.get("max_trials")) is not None:
        left = min(left, max(most - len(job.trials), 0))
    seconds = left * sum(took) / len(took)
    limit = limits.get("max_seconds")
    return seconds if limit is None else min(seconds, max(limit - elapsed, 0.0))


_LEAST_PROGRESS_FOR_ETA = 0.02
_SEARCHING = ("search", "refine")
USUAL_TRIALS = 10  # of a search; how many it takes is known only at its end
