"""Which job needs which stored file, so that a file goes with the last job that has it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa


class FileUses:
    """A row for each file of each finished job."""

    def __init__(self, engine: sa.Engine, jobs: sa.Table) -> None:
        """Create the table where it is missing, and fill it from the jobs of an earlier version."""
        self._engine = engine
        if sa.inspect(engine).has_table(_USES.name):
            return
        with engine.begin() as connection:
            _METADATA.create_all(connection)
            for job_id, artifacts in connection.execute(sa.select(jobs.c.id, jobs.c.artifacts)).all():
                self.note(connection, job_id, digests_in(artifacts))

    def note(self, connection: sa.Connection, job_id: str, sha256s: Collection[str]) -> None:
        """Note the files of a job, in the transaction that ends it."""
        rows = [{"job_id": job_id, "sha256": sha256} for sha256 in sorted(set(sha256s))]
        if rows:
            connection.execute(sa.insert(_USES), rows)

    def remove(self, connection: sa.Connection, job_id: str) -> frozenset[str]:
        """Remove the rows of a job and return the digests of files that no job needs any more."""
        own = frozenset(connection.execute(sa.select(_USES.c.sha256).where(_USES.c.job_id == job_id)).scalars())
        connection.execute(sa.delete(_USES).where(_USES.c.job_id == job_id))
        return own - frozenset(connection.execute(sa.select(_USES.c.sha256).where(_USES.c.sha256.in_(own))).scalars())

    def all(self) -> frozenset[str]:
        """Return the digests of all files that a job needs."""
        with self._engine.connect() as connection:
            return frozenset(connection.execute(sa.select(_USES.c.sha256).distinct()).scalars())


def digests_in(artifacts: Mapping[str, object]) -> tuple[str, ...]:
    """Return the digests of artifacts in their stored form."""
    return tuple(str(file["sha256"]) for file in artifacts.values() if isinstance(file, Mapping))


_METADATA = sa.MetaData()
_USES = sa.Table(
    "job_files",
    _METADATA,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("job_id", sa.String(64), primary_key=True, index=True),
)
