"""What happens to a job while it runs, as values: a stage begins, an engine was tried, more is done, the job has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from calibration.errors import OptimizerError
from service.client.client import is_finished, job_error
from service.client.views import JobView
from service.python.result import Latency, Result, known_value, result_from_json


@dataclass(frozen=True, slots=True)
class Trial:
    """An engine that was built, scored and timed; or why that failed."""

    index: int  # 0: the baseline
    order: str  # how its layers were chosen
    low_layers: int  # layers in a low precision
    fingerprint: str | None = None  # tells its precisions from others
    accuracy: float | None = None  # mean score
    latency_ms: Latency | None = None
    met: bool | None = None  # whether it is likely inside the budget; None where there is an objective instead
    fast_enough: bool | None = None  # where there is an objective
    failure: str | None = None  # None: it could be built and run


@dataclass(frozen=True, slots=True)
class StageEvent:
    """A stage of the job begins."""

    stage: str  # "queued", "inspect", "ranges", "search", "sensitivity", "dependency", "refine", "routes" or "report"
    progress: float  # of the job, 0..1


@dataclass(frozen=True, slots=True)
class TrialEvent:
    """An engine was tried."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """More of the job is done."""

    progress: float  # of the job, 0..1, never less than before
    message: str = ""  # what is being done, where it is known


@dataclass(frozen=True, slots=True)
class EndEvent:
    """The job has ended, for good."""

    state: str  # "succeeded", "failed" or "cancelled"
    result: Result | None  # of a job that succeeded
    error: OptimizerError | None  # of a job that did not


Event: TypeAlias = StageEvent | TrialEvent | ProgressEvent | EndEvent


class EventsOfViews:
    """Turns what a server shows of one job, look after look, into events: each is told once."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._progress = -1.0
        self._trials = NewTrials()

    def of(self, job: JobView) -> Iterator[Event]:
        """Yield what is new since the last look."""
        stage = job.stage if job.state == "running" else "queued" if job.state == "queued" else None
        if stage is not None and stage != self._stage:
            self._stage = stage
            yield StageEvent(stage, job.progress)
        yield from self._trials.of(job.trials)
        if job.progress > self._progress:
            self._progress = job.progress
            yield ProgressEvent(job.progress)
        if is_finished(job):
            yield end_of(job)


class NewTrials:
    """Tells each trial of one job once, however often the list is shown."""

    def __init__(self) -> None:
        self._told = 0

    def of(self, trials: Sequence[Mapping[str, object]]) -> Iterator[TrialEvent]:
        """Yield the trials that are new."""
        new = trials[self._told :]
        self._told = max(self._told, len(trials))
        for trial in new:
            yield TrialEvent(known_value(Trial, trial, "trial"))


def end_of(job: JobView) -> EndEvent:
    """Return how a finished job ended."""
    if job.result is None:
        return EndEvent(job.state, None, job_error(job))
    return EndEvent(job.state, result_from_json(job.result), None)
