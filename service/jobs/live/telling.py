"""Which events a change of a job gives, so that a replay after a restart tells nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from service.jobs.live.eta import branches_eta_seconds, eta_seconds
from service.jobs.live.events import Event, EventKind, EventLog
from service.jobs.records import Job, JobState


class Teller:
    """Writes the events of a change. Each method is called in the transaction of the change, after it was made."""

    def __init__(self, log: EventLog, clock: Callable[[], datetime]) -> None:
        """Make one; ``clock`` gives the present, in UTC."""
        self._log = log
        self._clock = clock

    def moved(self, connection: sa.Connection, job_id: str, state: JobState) -> tuple[Event, ...]:
        """Tell of a new state that is no end."""
        return (self._append(connection, job_id, EventKind.STATE, {"state": state.value}),)

    def advanced(self, connection: sa.Connection, job: Job, branches: Sequence[Job] = ()) -> tuple[Event, ...]:
        """Tell of a new stage, or of progress: each hundredth of it, and what there is of it after a few seconds.

        Args:
            connection: In the transaction.
            job: The job.
            branches: The jobs that do its work, if it is one for several types of GPU.
        """
        now = self._clock()
        last = self._log.last(connection, job.id, EventKind.STAGE, EventKind.PROGRESS)
        eta = branches_eta_seconds(branches, now) if branches else eta_seconds(job, now)
        shown = {"stage": job.stage, "progress": round(job.progress, 4), "eta_seconds": eta}
        if last is None or last.data.get("stage") != job.stage:
            return (self._append(connection, job.id, EventKind.STAGE, shown),)
        told = last.data.get("progress")
        gain = job.progress - told if isinstance(told, int | float) else 1.0
        if gain >= _LEAST_GAIN or (gain > 0 and now.timestamp() - last.at >= _SILENT_SECONDS):
            return (self._append(connection, job.id, EventKind.PROGRESS, shown),)
        return ()

    def searched(
        self, connection: sa.Connection, job_id: str, trials: Sequence[Mapping[str, object]], best: int | None
    ) -> tuple[Event, ...]:
        """Tell of trials that are new, and of a new best."""
        told = self._log.count(connection, job_id, EventKind.TRIAL)
        events = [self._append(connection, job_id, EventKind.TRIAL, trial) for trial in trials[told:]]
        last = self._log.last(connection, job_id, EventKind.BEST, EventKind.RESTARTED)
        known = last.data.get("best") if last is not None else None
        if best is not None and best != known:
            events.append(self._append(connection, job_id, EventKind.BEST, {"best": best}))
        return tuple(events)

    def logged(self, connection: sa.Connection, job_id: str, line: str) -> tuple[Event, ...]:
        """Tell a line of the log."""
        return (self._append(connection, job_id, EventKind.LOG, {"line": line}),)

    def restarted(self, connection: sa.Connection, job_id: str) -> tuple[Event, ...]:
        """Tell that what was found counts no more."""
        return (self._append(connection, job_id, EventKind.RESTARTED, {}),)

    def ended(self, connection: sa.Connection, job: Job) -> tuple[Event, ...]:
        """Tell the end."""
        return (self._append(connection, job.id, EventKind.END, end_of(job)),)

    def _append(self, connection: sa.Connection, job_id: str, kind: EventKind, data: Mapping[str, object]) -> Event:
        return self._log.append(connection, job_id, self._clock().timestamp(), kind, data)


def end_of(job: Job) -> dict[str, object]:
    """Return what the last event of a finished job says."""
    result = job.result or {}
    return {"state": job.state.value, "outcome": result.get("outcome"), "speedup": result.get("speedup"), "error": job.error}


_LEAST_GAIN = 0.01
_SILENT_SECONDS = 5.0
