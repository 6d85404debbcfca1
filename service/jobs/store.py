"""The jobs table: what each job was asked to do, how far it is and what came of it.

It lives in the same database as the workflow engine's tables but belongs to us. Every change is one statement that names the state it
expects, so that two threads or a restart in between cannot undo each other's work. Every method may raise a ``StorageError``: within a few
seconds, also where another process holds the database locked.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from calibration.codec import json_from_value, value_from_json
from engine_builder.workspace.workspace import FileRef
from service.errors import InvalidRequestError, NotFoundError
from service.jobs.records import Job, JobState, NewJob, StoredFile, check_move
from service.jobs.storage.holds import Hold, Holds
from service.jobs.storage.storage_errors import database_errors_translated

logger = logging.getLogger(__name__)


class JobStore:
    """Reads and writes jobs. Safe to share between threads; the database and ``holds``, the jobs that wait for it, are the only state."""

    def __init__(self, url: str, clock: Callable[[], datetime]) -> None:
        """Open the database and create the table where it is missing.

        Args:
            url: A SQLAlchemy URL.
            clock: The present, in UTC.
        """
        self._clock = clock
        self.holds = Holds()
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        with database_errors_translated():
            _METADATA.create_all(self._engine)
            _add_missing_columns(self._engine)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def create(self, new: NewJob, created_at: datetime | None = None) -> tuple[Job, bool]:
        """Write a queued job; a repeated idempotency key gives the job that it made first.

        Args:
            new: The job.
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
            with self._writing() as connection:
                connection.execute(sa.insert(_JOBS).values(row))
        except sa.exc.IntegrityError:
            earlier = self.find_by_key(new.idempotency_key, new.request_sha256)
            if earlier is None:
                raise
            return earlier, False
        return self.get(new.id), True

    def restore(self, rows: Sequence[Mapping[str, object]]) -> int:
        """Write rows of an earlier database, as SQLite gave them, and return how many were whole; those that are here already stay."""
        names = {column.name for column in _JOBS.columns}
        written = 0
        for row in rows:
            kept = {name: value for name, value in row.items() if name in names and value is not None}
            places = ", ".join(f":{name}" for name in kept)
            statement = sa.text(f"INSERT OR IGNORE INTO {_JOBS.name} ({', '.join(kept)}) VALUES ({places})")
            with self._writing() as connection:
                written += connection.execute(statement, kept).rowcount
            try:
                self.get(str(row["id"]))
            except (ValueError, TypeError, KeyError, NotFoundError) as exc:
                logger.warning("job %s: its row cannot be read and is left out: %s", row.get("id"), exc)
                with self._writing() as connection:
                    connection.execute(sa.delete(_JOBS).where(_JOBS.c.id == row.get("id")))
                written -= 1
        return written

    def find_by_key(self, key: str | None, request_sha256: str) -> Job | None:
        """Return the job that an idempotency key made, if there is one.

        Raises:
            InvalidRequestError: The key was used for another request.
        """
        if key is None:
            return None
        found = self._select(sa.select(_JOBS).where(_JOBS.c.idempotency_key == key))
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
        """
        found = self._select(sa.select(_JOBS).where(_JOBS.c.id == job_id))
        if not found:
            raise NotFoundError(f"job {job_id!r}: there is no such job", fix="List the jobs with GET /v1/jobs.")
        return found[0]

    def state(self, job_id: str) -> JobState:
        """Return the job's state only: the cheap question that a running job asks often."""
        with self._reading() as connection:
            found = connection.execute(sa.select(_JOBS.c.state).where(_JOBS.c.id == job_id)).scalar_one_or_none()
        if found is None:
            raise NotFoundError(f"job {job_id!r}: there is no such job", fix="List the jobs with GET /v1/jobs.")
        return JobState(found)

    def list(self, *, states: Sequence[JobState] = (), limit: int | None = None, before: int | None = None) -> tuple[Job, ...]:
        """Return jobs, newest first.

        Args:
            states: Only these; empty means all.
            limit: At most so many.
            before: Only jobs whose ``sequence`` is lower.
        """
        query = sa.select(_JOBS).order_by(_JOBS.c.sequence.desc())
        if states:
            query = query.where(self._is_shown_as(states))
        if before is not None:
            query = query.where(_JOBS.c.sequence < before)
        return self._select(query if limit is None else query.limit(limit))

    def unfinished_ids(self) -> tuple[str, ...]:
        """Return the ids of jobs that are not finished, oldest first."""
        query = sa.select(_JOBS.c.id).where(_JOBS.c.state.in_(_UNFINISHED)).order_by(_JOBS.c.sequence)
        with self._reading() as connection:
            return tuple(connection.execute(query).scalars())

    def check_writable(self) -> None:
        """Write something that changes nothing.

        Raises:
            StorageError: The database takes no changes now.
        """
        first = sa.select(_JOBS.c.sequence).limit(1).scalar_subquery()
        with self._writing() as connection:
            connection.execute(sa.update(_JOBS).where(_JOBS.c.sequence == first).values(trial_count=_JOBS.c.trial_count))

    def start(self, job_id: str) -> bool:
        """Move a queued job to running; a running one stays. Returns whether the job is to run (it may be finished already)."""
        self._update(job_id, JobState.QUEUED, {"state": JobState.RUNNING.value, "started_at": self._now()})
        return self.state(job_id) is JobState.RUNNING

    def advance(self, job_id: str, stage: str, progress: float) -> None:
        """Note the stage and the progress (0..1) of a running job; a lower progress than the noted one changes nothing."""
        values = {"stage": stage, "progress": min(max(progress, 0.0), 1.0)}
        self._update(job_id, JobState.RUNNING, values, _JOBS.c.progress <= values["progress"])

    def record_outputs(self, job_id: str, outputs: Sequence[Mapping[str, object]]) -> None:
        """Note what the outputs of a running job's model were taken for."""
        self._update(job_id, JobState.RUNNING, {"outputs": [dict(output) for output in outputs]})

    def record_trials(self, job_id: str, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        """Note the trials of a running job; fewer than are noted (a replay after a restart) change nothing."""
        values = {"trials": [dict(trial) for trial in trials], "trial_count": len(trials), "best": best}
        self._update(job_id, JobState.RUNNING, values, _JOBS.c.trial_count <= len(trials))

    def restart_search(self, job_id: str) -> None:
        """Forget what was found of an unfinished job, because another version of the pipeline will find its own."""
        values: dict[str, object] = {"trials": [], "trial_count": 0, "best": None, "outputs": None}
        for state in (JobState.QUEUED, JobState.RUNNING):
            self._update(job_id, state, values)

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
            if self._update(job_id, state, {"state": JobState.CANCELLED.value, "finished_at": self._now()}):
                return state
        return self.state(job_id)

    def _is_shown_as(self, states: Sequence[JobState]) -> sa.ColumnElement[bool]:
        """Return the condition that a job is in one of these states; an unfinished one that waits is on hold, whatever its row says."""
        waits = sa.and_(_JOBS.c.id.in_(self.holds.ids()), _JOBS.c.state.in_(_UNFINISHED))
        noted = sa.and_(_JOBS.c.state.in_([state.value for state in states]), sa.not_(waits))
        return sa.or_(noted, waits) if JobState.ON_HOLD in states else noted

    def _finish(self, job_id: str, new: JobState, values: Mapping[str, object]) -> None:
        old = self.state(job_id)
        check_move(old, new)
        if not self._update(job_id, old, {**values, "state": new.value, "finished_at": self._now()}):
            check_move(self.state(job_id), new)

    def _update(self, job_id: str, expected: JobState, values: Mapping[str, object], *conditions: sa.ColumnElement[bool]) -> bool:
        statement = sa.update(_JOBS).where(_JOBS.c.id == job_id, _JOBS.c.state == expected.value, *conditions).values(**values)
        with self._writing() as connection:
            return connection.execute(statement).rowcount > 0

    def _select(self, query: sa.Select[tuple[object, ...]]) -> tuple[Job, ...]:
        with self._reading() as connection:
            return tuple(_job_from_row(row, self.holds.find(row["id"])) for row in connection.execute(query).mappings())

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with database_errors_translated(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with database_errors_translated(), self._engine.begin() as connection:
            yield connection

    def _now(self) -> float:
        return self._clock().timestamp()


def _job_from_row(row: sa.RowMapping, hold: Hold | None) -> Job:
    state = JobState(row["state"])
    hold = None if state.is_finished else hold
    return Job(
        sequence=row["sequence"],
        new=NewJob(
            id=row["id"],
            target=row["target"],
            config=row["config"],
            inputs=value_from_json(dict[str, FileRef], row["inputs"]),
            idempotency_key=row["idempotency_key"],
            request_sha256=row["request_sha256"],
        ),
        state=state if hold is None else JobState.ON_HOLD,
        hold=hold,
        stage=row["stage"],
        progress=row["progress"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        started_at=_moment(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
        outputs=None if row["outputs"] is None else tuple(row["outputs"]),
        trials=tuple(row["trials"]),
        best=row["best"],
        result=row["result"],
        error=row["error"],
        engine=row["engine"],
        artifacts=value_from_json(dict[str, StoredFile], row["artifacts"]),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _add_missing_columns(engine: sa.Engine) -> None:
    """Add the columns that the table of an earlier version lacks; each may be null."""
    there = {column["name"] for column in sa.inspect(engine).get_columns(_JOBS.name)}
    with engine.begin() as connection:
        for column in _JOBS.columns:
            if column.name not in there:
                kind = column.type.compile(engine.dialect)
                connection.execute(sa.text(f"ALTER TABLE {_JOBS.name} ADD COLUMN {column.name} {kind}"))


def _prepare_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, for which SQLAlchemy has no type
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the workflow engine's writes
    cursor.execute("PRAGMA busy_timeout=3000")  # milliseconds; a caller is answered then, a job waits on
    cursor.close()


_UNFINISHED = (JobState.QUEUED.value, JobState.RUNNING.value)
_METADATA = sa.MetaData()
_JOBS = sa.Table(
    "jobs",
    _METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("stage", sa.String(32)),
    sa.Column("progress", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("target", sa.String(64), nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("inputs", sa.JSON, nullable=False),
    sa.Column("idempotency_key", sa.String(255), unique=True),
    sa.Column("request_sha256", sa.String(64), nullable=False),
    sa.Column("outputs", sa.JSON(none_as_null=True)),
    sa.Column("trials", sa.JSON, nullable=False),
    sa.Column("trial_count", sa.Integer, nullable=False, default=0),
    sa.Column("best", sa.Integer),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("engine", sa.String(255)),
    sa.Column("artifacts", sa.JSON, nullable=False),
)
