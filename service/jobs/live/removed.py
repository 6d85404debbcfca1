"""Jobs that were removed: who asks for one is told that it was here, and why it is no more; for some weeks, see ``upkeep.retention``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa

from service.access.caller import DEFAULT_TENANT
from service.database.missing_columns import add_missing_columns
from service.errors import RemovedError


class RemovedJobs:
    """A row for each job that was removed, until it is forgotten."""

    def __init__(self, engine: sa.Engine) -> None:
        """Create the table where it is missing."""
        self._engine = engine
        _METADATA.create_all(engine)
        if "tenant" in add_missing_columns(engine, _REMOVED):
            with engine.begin() as connection:
                connection.execute(sa.update(_REMOVED).values(tenant=DEFAULT_TENANT))

    def note(self, connection: sa.Connection, job_id: str, tenant: str, at: float, why: str) -> None:
        """Note a removal, in its transaction; ``at`` is in seconds since 1970, ``why`` a clause: "it was deleted"."""
        connection.execute(sa.insert(_REMOVED).values(id=job_id, tenant=tenant, at=at, why=why))

    def error(self, job_id: str, tenant: str | None = None) -> RemovedError | None:
        """Return what whoever asks for a removed job is told; None where there was none, or where it was another tenant's."""
        query = sa.select(_REMOVED).where(_REMOVED.c.id == job_id)
        with self._engine.connect() as connection:
            row = connection.execute(query if tenant is None else query.where(_REMOVED.c.tenant == tenant)).mappings().first()
        if row is None:
            return None
        at = datetime.fromtimestamp(row["at"], UTC).strftime("%Y-%m-%d %H:%M")
        return RemovedError(
            f"job {job_id}: {row['why']}, at {at} UTC; its files went with it", fix="Submit it again, if it is still wanted."
        )

    def forget(self, before: float, is_needed: Callable[[str], bool]) -> int:
        """Remove the rows of jobs that were removed before a moment, and return how many: whoever asks for one is told of none.

        Args:
            before: Seconds since 1970.
            is_needed: Whether the row of a job, given its id, has to stay.
        """
        with self._engine.connect() as connection:
            old = connection.execute(sa.select(_REMOVED.c.id).where(_REMOVED.c.at < before)).scalars().all()
        ids = [job_id for job_id in old if not is_needed(job_id)]
        for start in range(0, len(ids), _AT_ONCE):
            with self._engine.begin() as connection:
                connection.execute(sa.delete(_REMOVED).where(_REMOVED.c.id.in_(ids[start : start + _AT_ONCE])))
        return len(ids)


_AT_ONCE = 500  # rows in one statement
_METADATA = sa.MetaData()
_REMOVED = sa.Table(
    "removed_jobs",
    _METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("why", sa.String(255), nullable=False),
)
