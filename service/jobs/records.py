"""A job: its states, the moves between them, and the JSON that callers see.

queued ──> running ──> succeeded
  │  │        ├──────> failed
  │  └────────┼──────> cancelled
  └───────────┴──────> failed

A queued or running job whose disk or database cannot be used is shown as on hold until it goes on; see ``storage.holds``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from engine_builder.workspace.workspace import FileRef
from service.errors import IllegalMoveError
from service.jobs.storage.holds import Hold


class JobState(enum.StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    ON_HOLD = "on_hold"  # never written: the row keeps what the job was before
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        """Whether no move leads out of this state."""
        return not MOVES[self]


MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.ON_HOLD: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


def check_move(old: JobState, new: JobState) -> None:
    """Accept a legal move.

    Raises:
        IllegalMoveError: The state ``new`` cannot follow ``old``.
    """
    if new not in MOVES[old]:
        allowed = ", ".join(sorted(MOVES[old])) or "nothing, it is finished"
        raise IllegalMoveError(f"job: asked to move from {old} to {new}, allowed from {old}: {allowed}", fix="Read the job's state first.")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the artifact store.

    Attributes:
        sha256: Digest of its bytes, lower-case hexadecimal; also its key.
        size_bytes: Its length.
    """

    sha256: str
    size_bytes: int

    @property
    def id(self) -> str:
        """The id that callers use."""
        return f"sha256:{self.sha256}"


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is known of a job when it is submitted.

    Attributes:
        id: Chosen by the service; also the id of its workflow.
        config: The effective configuration, JSON.
        inputs: ``model``, ``calibration`` and perhaps ``validation`` and ``metric``, in the job's workspace.
        idempotency_key: The caller's key, if one was sent.
        request_sha256: Digest of everything that the caller asked for.
    """

    id: str
    target: str
    config: Mapping[str, object]
    inputs: Mapping[str, FileRef]
    idempotency_key: str | None = None
    request_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the jobs table. Only ``store.py`` makes new versions of it."""

    sequence: int
    new: NewJob
    state: JobState
    stage: str | None
    progress: float
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    trials: Sequence[Mapping[str, object]] = ()
    best: int | None = None
    result: Mapping[str, object] | None = None
    error: Mapping[str, object] | None = None
    engine: str | None = None  # its name among the artifacts
    artifacts: Mapping[str, StoredFile] = field(default_factory=dict)
    hold: Hold | None = None  # why it waits, where it is on hold
    outputs: Sequence[Mapping[str, object]] | None = None  # of the model: what each was taken for; None: it was not read yet

    @property
    def id(self) -> str:
        """The job's id."""
        return self.new.id


def job_json(job: Job, now: datetime) -> dict[str, object]:
    """Return the job as callers see it (the HTTP contract's one example).

    Args:
        job: The job.
        now: The present, for the estimate of the time left.
    """
    link = f"/v1/jobs/{job.id}"
    return {
        "id": job.id,
        "state": job.state.value,
        "hold": None if job.hold is None else _hold_json(job.hold),
        "stage": job.stage,
        "progress": round(job.progress, 4),
        "eta_seconds": _eta_seconds(job, now),
        "created_at": _time_text(job.created_at),
        "started_at": _time_text(job.started_at),
        "finished_at": _time_text(job.finished_at),
        "target": job.new.target,
        "config": dict(job.new.config),
        "outputs": None if job.outputs is None else [dict(output) for output in job.outputs],
        "trials": [dict(trial) for trial in job.trials],
        "best": job.best,
        "result": job.result,
        "error": job.error,
        "links": {"self": link, "engine": f"{link}/engine", "artifacts": f"{link}/artifacts"},
    }


def _hold_json(hold: Hold) -> dict[str, object]:
    return {"reason": hold.reason, "fix": hold.fix, "since": _time_text(hold.since)}


def _eta_seconds(job: Job, now: datetime) -> int | None:
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


def _time_text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_LEAST_PROGRESS_FOR_ETA = 0.02
_SEARCHING = ("search", "refine")
USUAL_TRIALS = 10  # of a search; how many it takes is known only at its end
