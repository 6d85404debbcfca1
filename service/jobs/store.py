"""The jobs table: what each job was asked to do, how far it is and what came of it.

It lives in the same database as the workflow engine's tables but belongs to us. Every change is one statement that names the state it
expects, so that two threads or a restart in between cannot undo each other's work. Every method may raise a ``StorageError``: within a few
seconds, also where another process holds the database locked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from calibration.codec import as_object, json_from_value
from service.errors import InvalidRequestError, NotFoundError, RemovedError
from service.jobs.job_table import JOBS, ROW_COLUMNS, job_from_row, prepare, put_raw_row, row_from_row
from service.jobs.live.events import Event, EventLog
from service.jobs.live.file_uses import FileUses, digests_in
from service.jobs.live.removed import RemovedJobs
from service.jobs.live.telling import Teller
from service.jobs.live.webhooks import Webhooks
from service.jobs.records import Job, JobRow, JobState, NewJob, StoredFile, Webhook, check_move
from service.jobs.storage.holds import Holds
from service.jobs.storage.storage_errors import translate_database_errors

logger = logging.getLogger(__name__)


class JobStore:
    """Reads and writes jobs, and tells of each change in ``events``.

    Safe to share between threads; the database and ``holds``, the jobs that wait for it, are the only state.
    """

    def __init__(self, url: str, clock: Callable[[], datetime]) -> None:
        """Open the database and create the table where it is missing.

        Args:
            url: A SQLAlchemy URL.
            clock: The present, in UTC.
        """
        self._clock = clock
        self.holds = Holds()
        self._engine = sa.create_engine(url)
        translate_database_errors(self._engine)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        prepare(self._engine)
        self.events = EventLog(self._engine)
        self._teller = Teller(self.events, clock)
        self._removed = RemovedJobs(self._engine)
        self.webhooks = Webhooks(self._engine)
        self.file_uses = FileUses(self._engine, JOBS)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def create(self, new: NewJob, webhook: Webhook | None = None, created_at: datetime | None = None) -> tuple[Job, bool]:
        """Write a queued job; a repeated idempotency key gives the job that it made first.

        Args:
            new: The job.
            webhook: Who is told of its end.
            created_at: When it was submitted; now by default.

        Returns:
            The job, and whether it is new.

        Raises:
            InvalidRequestError: The idempotency key was used for another request.
        """
        row = {
            "id": new.id,
            "state": JobState.QUEUED.value,
            "progress": 0.0,
            "created_at": self._now() if created_at is None else created_at.timestamp(),
            "target": new.target,
            "config": dict(new.config),
            "inputs": json_from_value(new.inputs),
            "idempotency_key": new.idempotency_key,
            "request_sha256": new.request_sha256,
            "trials": [],
            "artifacts": {},
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(JOBS).values(row))
                events = self._teller.moved(connection, new.id, JobState.QUEUED)
                if webhook is not None:
                    self.webhooks.add(connection, new.id, webhook)
        except sa.exc.IntegrityError:
            earlier = self.find_by_key(new.idempotency_key, new.request_sha256)
            if earlier is None:
                raise
            return earlier, False
        self.events.publish(new.id, events)
        return self.get(new.id), True

    def restore(self, rows: Sequence[Mapping[str, object]]) -> int:
        """Write rows of an earlier database, as SQLite gave them, and return how many were whole; those that are here already stay."""
        written = 0
        for row in rows:
            try:
                with self._engine.begin() as connection:
                    if put_raw_row(connection, row):
                        files = self._read(connection, str(row["id"])).artifacts.values()
                        self.file_uses.note(connection, str(row["id"]), [file.sha256 for file in files])
                        written += 1
            except (ValueError, TypeError, KeyError, sa.exc.NoResultFound) as exc:
                logger.warning("job %s: its row cannot be read and is left out: %s", row.get("id"), exc)
        return written

    def find_by_key(self, key: str | None, request_sha256: str) -> Job | None:
        """Return the job that an idempotency key made, if there is one.

        Raises:
            InvalidRequestError: The key was used for another request.
        """
        if key is None:
            return None
        found = self._select(sa.select(JOBS).where(JOBS.c.idempotency_key == key))
        if not found:
            return None
        if found[0].new.request_sha256 != request_sha256:
            raise InvalidRequestError(
                f"Idempotency-Key {key!r}: it was used for another request (job {found[0].id})",
                fix="Use a new key for a new request, or repeat the first request unchanged.",
            )
        return found[0]

    def get(self, job_id: str) -> Job:
        """Return the job.

        Raises:
            NotFoundError: There is none with this id.
            RemovedError: There was one, which was removed.
        """
        found = self._select(sa.select(JOBS).where(JOBS.c.id == job_id))
        if not found:
            raise self._missing(job_id)
        return found[0]

    def state(self, job_id: str) -> JobState:
        """Return the job's state only: the cheap question that a running job asks often."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(JOBS.c.state).where(JOBS.c.id == job_id)).scalar_one_or_none()
        if found is None:
            raise self._missing(job_id)
        return JobState(found)

    def list(self, *, states: Sequence[JobState] = (), limit: int | None = None, before: int | None = None) -> tuple[Job, ...]:
        """Return jobs, newest first.

        Args:
            states: Only these; empty means all.
            limit: At most so many.
            before: Only jobs whose ``sequence`` is lower.
        """
        query = sa.select(JOBS).order_by(JOBS.c.sequence.desc())
        if states:
            query = query.where(self._is_shown_as(states))
        if before is not None:
            query = query.where(JOBS.c.sequence < before)
        return self._select(query if limit is None else query.limit(limit))

    def rows(self, *, states: Sequence[JobState] = (), limit: int, before: int | None = None) -> tuple[JobRow, ...]:
        """Return jobs as a list shows them, newest first; for the arguments see ``list``."""
        columns = [JOBS.c[name] for name in ROW_COLUMNS]
        facts = [JOBS.c.result[name].label(name) for name in ("outcome", "speedup")]
        query = sa.select(*columns, *facts).order_by(JOBS.c.sequence.desc()).limit(limit)
        if states:
            query = query.where(self._is_shown_as(states))
        if before is not None:
            query = query.where(JOBS.c.sequence < before)
        with self._engine.connect() as connection:
            return tuple(row_from_row(row, self.holds.find(row["id"])) for row in connection.execute(query).mappings())

    def unfinished_ids(self) -> tuple[str, ...]:
        """Return the ids of jobs that are not finished, oldest first."""
        query = sa.select(JOBS.c.id).where(JOBS.c.state.in_(_UNFINISHED)).order_by(JOBS.c.sequence)
        with self._engine.connect() as connection:
            return tuple(connection.execute(query).scalars())

    def remove(self, job_id: str, why: str) -> frozenset[str] | None:
        """Remove a finished job and its events, for good; one that is not finished stays.

        Args:
            job_id: The job.
            why: What whoever asks for it later is told: "it was deleted ...".

        Returns:
            Digests of its files that no job has any more; None where it was not removed.
        """
        finished = [state.value for state in JobState if state.is_finished]
        with self._engine.begin() as connection:
            statement = sa.delete(JOBS).where(JOBS.c.id == job_id, JOBS.c.state.in_(finished))
            if connection.execute(statement).rowcount == 0:
                return None
            self._removed.note(connection, job_id, self._now(), why)
            self.events.remove(connection, job_id)
            self.webhooks.remove(connection, job_id)
            return self.file_uses.remove(connection, job_id)

    def finished_before(self, moment: float) -> tuple[tuple[str, float], ...]:
        """Return the id of each job that was finished before a moment, and when it was, the oldest first; seconds since 1970."""
        finished = [state.value for state in JobState if state.is_finished]
        query = sa.select(JOBS.c.id, JOBS.c.finished_at).where(JOBS.c.state.in_(finished), JOBS.c.finished_at < moment)
        with self._engine.connect() as connection:
            return tuple((row.id, row.finished_at) for row in connection.execute(query.order_by(JOBS.c.finished_at)))

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state that any is in."""
        shown = sa.case((self._waits(), JobState.ON_HOLD.value), else_=JOBS.c.state).label("shown")
        query = sa.select(shown, sa.func.count()).group_by(shown)
        with self._engine.connect() as connection:
            return {JobState(state): count for state, count in connection.execute(query)}

    def durations(self) -> dict[JobState, tuple[int, float]]:
        """Return how many jobs that ran ended in each state, and the seconds that they took together."""
        seconds = sa.func.sum(JOBS.c.finished_at - JOBS.c.started_at)
        ran = (JOBS.c.started_at.is_not(None), JOBS.c.finished_at.is_not(None))
        query = sa.select(JOBS.c.state, sa.func.count(), seconds).where(*ran).group_by(JOBS.c.state)
        with self._engine.connect() as connection:
            return {JobState(state): (count, float(total)) for state, count, total in connection.execute(query)}

    def check_writable(self) -> None:
        """Write something that changes nothing.

        Raises:
            StorageError: The database takes no changes now.
        """
        first = sa.select(JOBS.c.sequence).limit(1).scalar_subquery()
        with self._engine.begin() as connection:
            connection.execute(sa.update(JOBS).where(JOBS.c.sequence == first).values(trial_count=JOBS.c.trial_count))

    def start(self, job_id: str) -> bool:
        """Move a queued job to running; a running one stays. Returns whether the job is to run (it may be finished already)."""
        values = {"state": JobState.RUNNING.value, "started_at": self._now()}
        self._update(job_id, JobState.QUEUED, values, tell=lambda connection: self._teller.moved(connection, job_id, JobState.RUNNING))
        return self.state(job_id) is JobState.RUNNING

    def advance(self, job_id: str, stage: str, progress: float) -> None:
        """Note the stage and the progress (0..1) of a running job; a lower progress than the noted one changes nothing."""
        values = {"stage": stage, "progress": min(max(progress, 0.0), 1.0)}
        tell = lambda connection: self._teller.advanced(connection, self._read(connection, job_id))  # noqa: E731
        self._update(job_id, JobState.RUNNING, values, JOBS.c.progress <= values["progress"], tell=tell)

    def record_outputs(self, job_id: str, outputs: Sequence[Mapping[str, object]]) -> None:
        """Note what the outputs of a running job's model were taken for."""
        self._update(job_id, JobState.RUNNING, {"outputs": [dict(output) for output in outputs]})

    def record_trials(self, job_id: str, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        """Note the trials of a running job; fewer than are noted (a replay after a restart) change nothing."""
        values = {"trials": [dict(trial) for trial in trials], "trial_count": len(trials), "best": best}
        tell = lambda connection: self._teller.searched(connection, job_id, trials, best)  # noqa: E731
        self._update(job_id, JobState.RUNNING, values, JOBS.c.trial_count <= len(trials), tell=tell)

    def log(self, job_id: str, line: str) -> None:
        """Tell listeners a line of a running job's log."""
        tell = lambda connection: self._teller.logged(connection, job_id, line)  # noqa: E731
        self._update(job_id, JobState.RUNNING, {"state": JobState.RUNNING.value}, tell=tell)

    def restart_search(self, job_id: str) -> None:
        """Forget what was found of an unfinished job, because another version of the pipeline will find its own."""
        values: dict[str, object] = {"trials": [], "trial_count": 0, "best": None, "outputs": None}
        for state in (JobState.QUEUED, JobState.RUNNING):
            self._update(job_id, state, values, tell=lambda connection: self._teller.restarted(connection, job_id))

    def succeed(self, job_id: str, result: Mapping[str, object], engine: str, artifacts: Mapping[str, StoredFile]) -> None:
        """Move a running job to succeeded, with its result, the name of its engine and everything that can be downloaded."""
        values = {"result": dict(result), "engine": engine, "artifacts": json_from_value(artifacts), "progress": 1.0}
        self._finish(job_id, JobState.SUCCEEDED, values)

    def fail(self, job_id: str, error: Mapping[str, object], artifacts: Mapping[str, StoredFile]) -> None:
        """Move a job to failed, with the problem object and the files that help to understand it."""
        self._finish(job_id, JobState.FAILED, {"error": dict(error), "artifacts": json_from_value(artifacts)})

    def cancel(self, job_id: str) -> JobState:
        """Move a job to cancelled, unless it is finished. Returns the state it was in; a second cancel changes nothing."""
        for state in (JobState.QUEUED, JobState.RUNNING):
            values = {"state": JobState.CANCELLED.value, "finished_at": self._now()}
            if self._update(job_id, state, values, tell=self._end(job_id)):
                return state
        return self.state(job_id)

    def _finish(self, job_id: str, new: JobState, values: Mapping[str, object]) -> None:
        old = self.state(job_id)
        check_move(old, new)
        kept, end = digests_in(as_object(values["artifacts"])), self._end(job_id)

        def tell(connection: sa.Connection) -> Sequence[Event]:
            self.file_uses.note(connection, job_id, kept)
            return end(connection)

        if not self._update(job_id, old, {**values, "state": new.value, "finished_at": self._now()}, tell=tell):
            check_move(self.state(job_id), new)

    def _end(self, job_id: str) -> Tell:
        return lambda connection: self._teller.ended(connection, self._read(connection, job_id))

    def _update(
        self,
        job_id: str,
        expected: JobState,
        values: Mapping[str, object],
        *conditions: sa.ColumnElement[bool],
        tell: Tell = lambda _: (),
    ) -> bool:
        statement = sa.update(JOBS).where(JOBS.c.id == job_id, JOBS.c.state == expected.value, *conditions).values(**values)
        with self._engine.begin() as connection:
            if connection.execute(statement).rowcount == 0:
                return False
            events = tell(connection)
        self.events.publish(job_id, events)
        return True

    def _read(self, connection: sa.Connection, job_id: str) -> Job:
        return job_from_row(connection.execute(sa.select(JOBS).where(JOBS.c.id == job_id)).mappings().one())

    def _missing(self, job_id: str) -> NotFoundError | RemovedError:
        return self._removed.error(job_id) or NotFoundError(f"job {job_id!r}: there is no such job", fix="List the jobs with GET /v1/jobs.")

    def _select(self, query: sa.Select[tuple[object, ...]]) -> tuple[Job, ...]:
        with self._engine.connect() as connection:
            return tuple(job_from_row(row, self.holds.find(row["id"])) for row in connection.execute(query).mappings())

    def _is_shown_as(self, states: Sequence[JobState]) -> sa.ColumnElement[bool]:
        """Return the condition that a job is in one of these states; an unfinished one that waits is on hold, whatever its row says."""
        noted = sa.and_(JOBS.c.state.in_([state.value for state in states]), sa.not_(self._waits()))
        return sa.or_(noted, self._waits()) if JobState.ON_HOLD in states else noted

    def _waits(self) -> sa.ColumnElement[bool]:
        return sa.and_(JOBS.c.id.in_(self.holds.ids()), JOBS.c.state.in_(_UNFINISHED))

    def _now(self) -> float:
        return self._clock().timestamp()


def _prepare_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, for which SQLAlchemy has no type
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the workflow engine's writes
    cursor.execute("PRAGMA busy_timeout=3000")  # milliseconds; a caller is answered then, a job waits on
    cursor.close()


_UNFINISHED = (JobState.QUEUED.value, JobState.RUNNING.value)
Tell = Callable[[sa.Connection], Sequence[Event]]  # writes the events of a change, in its transaction
