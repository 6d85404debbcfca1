"""Why a job's run ends before the job has an outcome."""

from __future__ import annotations

from contextlib import suppress

from service.errors import RemovedError, StorageError
from service.jobs.records import JobState
from service.jobs.resources import Deps


class ServerStopping(BaseException):
    """The server stops, or has lost the right to run the job, which goes on later: here or elsewhere.

    No ``Exception``, so that neither the pipeline takes it for a failed trial nor the engine for a step's outcome.
    """


class JobCancelled(BaseException):
    """The job was cancelled. No ``Exception``, for the same reason."""


class Tenure:
    """The time in which this process may run what it takes now: until it stops or loses its lease, for good."""

    def __init__(self, deps: Deps) -> None:
        """Begin it.

        Raises:
            ServerStopping: It is over already.
        """
        self._deps = deps
        self._lease = deps.lease_number()
        if self._lease is None or deps.stopping.is_set():
            raise ServerStopping

    def is_lost(self) -> bool:
        """Whether another process may run it by now."""
        return self._deps.lease_number() != self._lease

    def is_over(self) -> bool:
        """Whether the process may run it no longer."""
        return self._deps.stopping.is_set() or self.is_lost()


def why_ended(deps: Deps, job_id: str, tenure: Tenure) -> BaseException | None:
    """Return why a job that waits is to wait no longer."""
    if tenure.is_over():
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
