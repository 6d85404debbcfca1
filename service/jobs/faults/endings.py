"""Why a job's run ends before the job has an outcome."""

from __future__ import annotations

from contextlib import suppress

from service.errors import RemovedError, StorageError
from service.jobs.records import JobState
from service.jobs.resources import Deps


class ServerStopping(BaseException):
    """The server stops. No ``Exception``, so that neither the pipeline takes it for a failed trial nor the engine for a step's outcome."""


class JobCancelled(BaseException):
    """The job was cancelled. No ``Exception``, for the same reason."""


def why_ended(deps: Deps, job_id: str) -> BaseException | None:
    """Return why a job that waits is to wait no longer."""
    if deps.stopping.is_set():
        return ServerStopping()
    with suppress(StorageError):
        if end_of(deps, job_id) not in _UNFINISHED:
            return JobCancelled()
    return None


def end_of(deps: Deps, job_id: str) -> str:
    """Return the job's state, or that it was removed."""
    try:
        return deps.store.state(job_id).value
    except RemovedError:
        return "removed"


_UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
