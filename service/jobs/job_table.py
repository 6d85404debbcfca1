"""The table of jobs, what brings that of an earlier version up to date, and how its rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import sqlalchemy as sa

from calibration.codec import json_from_value, value_from_json
from engine_builder.workspace.workspace import FileRef
from service.access.caller import DEFAULT_TENANT
from service.database.missing_columns import add_missing_columns
from service.jobs.records import Job, JobRow, JobState, NewJob, StoredFile
from service.jobs.storage.holds import Hold


def prepare(engine: sa.Engine) -> None:
    """Create the table where it is missing, and what that of an earlier version lacks: columns, their values, indexes."""
    if not sa.inspect(engine).has_table(JOBS.name):
        _METADATA.create_all(engine)
    add_missing_columns(engine, JOBS)
    _fill_from_earlier_version(engine)
    with engine.begin() as connection:
        for name in _EARLIER_INDEXES:
            connection.execute(sa.text(f"DROP INDEX IF EXISTS {name}"))
    for index in JOBS.indexes:
        index.create(engine, checkfirst=True)


def job_from_row(row: sa.RowMapping, hold: Hold | None = None) -> Job:
    """Return the job of a whole row; an unfinished one that is held is on hold."""
    state, hold = _shown(row, hold)
    return Job(
        sequence=row["sequence"],
        new=NewJob(
            id=row["id"],
            target=row["target"],
            config=row["config"],
            inputs=value_from_json(dict[str, FileRef], row["inputs"]),
            idempotency_key=row["request_key"],
            request_sha256=row["request_sha256"],
            priority=row["priority"],
            tenant=row["tenant"],
            parent=row["parent"],
            branches=row["branches"] or 0,
        ),
        state=state,
        stage=row["stage"],
        progress=row["progress"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        started_at=_moment(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
        hold=hold,
        outputs=None if row["outputs"] is None else tuple(row["outputs"]),
        trials=tuple(row["trials"]),
        best=row["best"],
        result=row["result"],
        error=row["error"],
        engine=row["engine"],
        artifacts=value_from_json(dict[str, StoredFile], row["artifacts"]),
    )


def row_of(new: NewJob, created_at: float) -> dict[str, object]:
    """Return the row of a queued job; ``created_at`` in seconds since 1970."""
    return {
        "id": new.id,
        "state": JobState.QUEUED.value,
        "progress": 0.0,
        "created_at": created_at,
        "target": new.target,
        "config": dict(new.config),
        "inputs": json_from_value(new.inputs),
        "tenant": new.tenant,
        "request_key": new.idempotency_key,
        "request_sha256": new.request_sha256,
        "priority": new.priority,
        "parent": new.parent,
        "branches": new.branches or None,
        "trials": [],
        "artifacts": {},
    }


def row_from_row(row: sa.RowMapping, hold: Hold | None) -> JobRow:
    """Return the row of a list; it holds ``ROW_COLUMNS``, and three facts of the result."""
    state, _ = _shown(row, hold)
    return JobRow(
        sequence=row["sequence"],
        id=row["id"],
        state=state,
        stage=row["stage"],
        progress=row["progress"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        started_at=_moment(row["started_at"]),
        finished_at=_moment(row["finished_at"]),
        target=row["target"],
        tenant=row["tenant"],
        outcome=row["outcome"],
        speedup=row["speedup"],
        predicted_speedup=row["predicted_speedup"],
    )


def put_raw_row(connection: sa.Connection, row: Mapping[str, object]) -> bool:
    """Write a row as SQLite gave it, and return whether it was written: not where one like it is here already."""
    names = {column.name for column in JOBS.columns}
    earlier = {"tenant": DEFAULT_TENANT, "priority": 0, "request_key": row.get(_EARLIER_KEY)}
    kept = {name: value for name, value in {**earlier, **row}.items() if name in names and value is not None}
    places = ", ".join(f":{name}" for name in kept)
    statement = sa.text(f"INSERT OR IGNORE INTO {JOBS.name} ({', '.join(kept)}) VALUES ({places})")
    return connection.execute(statement, kept).rowcount > 0


def _shown(row: sa.RowMapping, hold: Hold | None) -> tuple[JobState, Hold | None]:
    state = JobState(row["state"])
    if hold is None or state.is_finished:
        return state, None
    return JobState.ON_HOLD, hold


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _fill_from_earlier_version(engine: sa.Engine) -> None:
    """Fill columns that an earlier version did not have: jobs from before there were tenants belong to the first one.

    Idempotency keys were unique among all jobs then. SQLite cannot take that back from a column, so they move to another one. It is done
    at each start, since the last one may have ended between the columns and their values.
    """
    had_keys = any(column["name"] == _EARLIER_KEY for column in sa.inspect(engine).get_columns(JOBS.name))
    with engine.begin() as connection:
        connection.execute(sa.update(JOBS).where(JOBS.c.tenant.is_(None)).values(tenant=DEFAULT_TENANT))
        connection.execute(sa.update(JOBS).where(JOBS.c.priority.is_(None)).values(priority=0))
        if had_keys:
            earlier: sa.ColumnElement[str] = sa.literal_column(_EARLIER_KEY)
            connection.execute(sa.update(JOBS).where(JOBS.c.request_key.is_(None), earlier.is_not(None)).values(request_key=earlier))


ROW_COLUMNS = ("sequence", "id", "state", "stage", "progress", "created_at", "started_at", "finished_at", "target", "tenant")
_EARLIER_KEY = "idempotency_key"
_METADATA = sa.MetaData()
JOBS = sa.Table(
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
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("request_key", sa.String(255)),  # the caller's idempotency key
    sa.Column("request_sha256", sa.String(64), nullable=False),
    sa.Column("priority", sa.Integer),
    sa.Column("parent", sa.String(64)),  # the job of which it is a branch
    sa.Column("branches", sa.Integer),  # how many jobs do the work of this one; NULL: it is run itself
    sa.Column("outputs", sa.JSON(none_as_null=True)),
    sa.Column("trials", sa.JSON, nullable=False),
    sa.Column("trial_count", sa.Integer, nullable=False, default=0),
    sa.Column("best", sa.Integer),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("engine", sa.String(255)),
    sa.Column("artifacts", sa.JSON, nullable=False),
    sa.Index("ix_jobs_times", "state", "branches", "started_at", "finished_at"),  # all that figures of durations need
    sa.Index("ix_jobs_tenant", "tenant", "sequence"),
    sa.Index("ix_jobs_tenant_started", "tenant", "started_at"),  # when a job of a tenant last began
    sa.Index("ix_jobs_tenant_state", "tenant", "state", "sequence"),
    sa.Index("ix_jobs_line", "state", "tenant", sa.desc("priority"), "sequence", "branches", "id"),  # whose turn is next
    sa.Index("ux_jobs_request_key", "tenant", "request_key", unique=True),  # jobs without a key do not meet in it
)
IS_RUN = JOBS.c.branches.is_(None)  # by a worker itself: it is no job whose branches are
IS_OWN = JOBS.c.parent.is_(None)  # submitted by a caller: it is no branch of another job
_IS_BRANCH = JOBS.c.parent.is_not(None)
# Of branches alone: else a database that was just restored looks all other jobs up in it for a list of those that are none.
sa.Index("ix_jobs_branches", JOBS.c.parent, JOBS.c.sequence, postgresql_where=_IS_BRANCH, sqlite_where=_IS_BRANCH)
_EARLIER_INDEXES = ("ix_jobs_state_times", "ix_jobs_parent")
