"""How long a running job will go on, about: the search by what its engines took, and all that comes after it.

After the search engines are built again, judged, timed beside each other and offered, and the report is drawn. That is counted in engines
of the search, and in seconds for the report: of a job of 23 CPU seconds three trials took 6.2, the verdict 3.0 and the report 3.3.

How many engines the search tries depends on what they turn out to be. Where one of the first ones is inside the budget there are few; a job
that begins to measure sensitivities has more before it. Until the baseline is measured there is only what the preparation took: of jobs of
31 to 120 seconds a quarter to a third.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from engine_builder.config.builder_options import BuildRoutes
from engine_builder.pipeline import stage_table as table
from service.jobs.records import Job, JobState


def eta_seconds(job: Job, now: datetime) -> int | None:
    """Return about how many seconds a running job has left; None of another job, or before there is anything to tell it by."""
    if job.state is not JobState.RUNNING or job.started_at is None or job.progress < _LEAST_PROGRESS:
        return None
    elapsed = (now - job.started_at).total_seconds()
    engine = _engine_seconds(job)
    to_come = (*_AFTER_SEARCH, _STRIPPING) if _section(job, "builder").get("strip_weights") else _AFTER_SEARCH
    after = sum(_left_of(span, job.progress) * (engines * engine + fixed) for span, engines, fixed in to_come)
    if job.stage == _LAST:
        return max(1, round(after))
    if not engine:
        return max(1, round(_PREPARATIONS_LEFT * elapsed + after))
    return max(1, round(_engines_left(job, elapsed, engine) + after))


def branches_eta_seconds(branches: Sequence[Job], now: datetime) -> int | None:
    """Return about how many seconds a job with these branches has left, those of the slowest one; None where one has not begun."""
    left = [eta_seconds(branch, now) for branch in branches if not branch.state.is_finished]
    known = [seconds for seconds in left if seconds is not None]
    return max(known) if known and len(known) == len(left) else None


def _engine_seconds(job: Job) -> float:
    """Return what an engine of the search took on average, else the baseline; 0.0 where neither is known."""
    counted = _engines(job) or job.trials
    took = [float(seconds) if isinstance(seconds := trial.get("seconds"), int | float) else 0.0 for trial in counted]
    return sum(took) / len(took) if took else 0.0


def _engines_left(job: Job, elapsed: float, engine: float) -> float:
    """Return about how many seconds the search and the build routes after it have left.

    Where builds take minutes, these take longer than all that came before.
    """
    if job.stage not in (*_SEARCHING, _ROUTES) or not engine:
        return 0.0
    limits = _section(job, "search")
    is_lossless = bool(_engines(job)) and all(trial.get("met") for trial in _engines(job))  # then only time is left to search for
    usual = USUAL_TRIALS if job.stage in _PROBING or job.progress > _PROBED else FIRST_TRIALS
    left: float = 1 if is_lossless else max(usual - len(job.trials), 1)
    most = math.inf if limits.get("max_trials") is None else max(limits["max_trials"] - len(job.trials), 0)
    search = min(left, most) * engine if job.stage in _SEARCHING else 0.0
    total = min(search + _route_seconds(job, elapsed + search, engine), most * engine)
    return total if (limit := limits.get("max_seconds")) is None else min(total, max(limit - elapsed, 0.0))


def _route_seconds(job: Job, before: float, engine: float) -> float:
    """Return about how many seconds build routes have left: by default no more than the job took ``before`` them.

    How many of them there are only the builder knows.
    """
    wanted = _section(job, "builder").get("build_routes")
    if job.new.target != _WITH_ROUTES or wanted == BuildRoutes.OFF or job.new.config.get("objective") is not None:
        return 0.0
    left = _left_of(table.ROUTE.progress, job.progress)
    if job.stage == _ROUTES:
        before /= 2.0 - left  # as much as was spent on routes since is no part of it
    return left * min(USUAL_ROUTES * engine, before if wanted is None else math.inf)


def _section(job: Job, name: str) -> Mapping[str, Any]:
    """Return a section of the job's configuration, empty where it has none."""
    given = job.new.config.get(name)
    return given if isinstance(given, Mapping) else {}


def _engines(job: Job) -> list[Mapping[str, object]]:
    return [trial for trial in job.trials if trial.get("low_layers")]


def _left_of(span: tuple[float, float], progress: float) -> float:
    low, high = span
    return min(max((high - progress) / (high - low), 0.0), 1.0)


_LEAST_PROGRESS = 0.02
_PROBING = ("sensitivity", "dependency", "refine")
_SEARCHING = ("search", *_PROBING)
_PROBED = table.RANK.progress[1]
_ROUTES = "routes"
_LAST = "report"
_WITH_ROUTES = "tensorrt"  # the target
_AFTER_SEARCH = (  # the span of the progress, engines' worth of time, and seconds besides
    (table.REBUILD.progress, 1.0, 0.0),
    (table.VERDICT.progress, 1.5, 0.0),
    (table.OFFERS.progress, 0.5, 1.0),
    (table.REPORT.progress, 0.0, 4.0),
)
_STRIPPING = (table.STRIP.progress, 1.0, 15.0)  # only where it is asked for
_PREPARATIONS_LEFT = 2.5
FIRST_TRIALS, USUAL_TRIALS, USUAL_ROUTES = 4, 12, 10  # how many there are is known only at their end
