"""Holds that other processes see: those of each in the database too, as far as that can be written to."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import sqlalchemy as sa

from service.errors import StorageError
from service.jobs.storage.holds import Hold, Holds


class SharedHolds(Holds):
    """Holds of this process, and those of others as they were at the last ``refresh``. Safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        """Create the table where it is missing."""
        super().__init__()
        self._engine = engine
        self._others: dict[str, Hold] = {}  # replaced, never changed
        _METADATA.create_all(engine)

    def put(self, job_id: str, hold: Hold) -> None:
        """Put a job on hold, or change the reason."""
        before = super().find(job_id)
        super().put(job_id, hold)
        if before is not None and (before.reason, before.fix) == (hold.reason, hold.fix):
            return
        since = hold.since if before is None else before.since
        with contextlib.suppress(StorageError), self._engine.begin() as connection:  # the database may be what it waits for
            connection.execute(sa.delete(_HOLDS).where(_HOLDS.c.job_id == job_id))
            connection.execute(sa.insert(_HOLDS).values(job_id=job_id, reason=hold.reason, fix=hold.fix, since=since.timestamp()))

    def release(self, job_id: str) -> None:
        """Let a job go on, whoever held it."""
        super().release(job_id)
        with contextlib.suppress(StorageError), self._engine.begin() as connection:
            connection.execute(sa.delete(_HOLDS).where(_HOLDS.c.job_id == job_id))

    def find(self, job_id: str) -> Hold | None:
        """Return why a job waits, if it does."""
        return super().find(job_id) or self._others.get(job_id)

    def ids(self) -> tuple[str, ...]:
        """Return the jobs on hold."""
        return tuple({*super().ids(), *self._others})

    def refresh(self) -> None:
        """Learn what other processes hold."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_HOLDS)).mappings().all()
        self._others = {row["job_id"]: Hold(row["reason"], row["fix"], datetime.fromtimestamp(row["since"], UTC)) for row in rows}


_METADATA = sa.MetaData()
_HOLDS = sa.Table(
    "holds",
    _METADATA,
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("fix", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
)
