"""Which job needs which stored file, so that a file goes with the last job that has it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import sqlalchemy as sa

from service.jobs.records import StoredFile


class FileUses:
    """A row for each file of each finished job."""

    def __init__(self, engine: sa.Engine, jobs: sa.Table) -> None:
        """Create the table where it is missing, and fill it from the jobs of an earlier version."""
        self._engine = engine
        self.check_there: Callable[[sa.Connection, Collection[str]], None] = lambda _connection, _sha256s: None  # set before use, if at all
        there = sa.inspect(engine)
        if there.has_table(FILES.name) and any(column["name"] == "size_bytes" for column in there.get_columns(FILES.name)):
            return
        with engine.begin() as connection:
            FILES.drop(connection, checkfirst=True)  # of an earlier version, without sizes: all that it holds stands in the jobs
            _METADATA.create_all(connection)
            for job_id, artifacts in connection.execute(sa.select(jobs.c.id, jobs.c.artifacts)).all():
                self.note(connection, job_id, files_in(artifacts))

    def note(self, connection: sa.Connection, job_id: str, files: Collection[StoredFile]) -> None:
        """Note the files of a job, in the transaction that ends it."""
        sizes = {file.sha256: file.size_bytes for file in files}
        rows = [{"job_id": job_id, "sha256": sha256, "size_bytes": size} for sha256, size in sorted(sizes.items())]
        if rows:
            self.check_there(connection, list(sizes))
            connection.execute(sa.insert(FILES), rows)

    def remove(self, connection: sa.Connection, job_id: str) -> frozenset[str]:
        """Remove the rows of a job and return the digests of files that no job needs any more."""
        own = frozenset(connection.execute(sa.select(FILES.c.sha256).where(FILES.c.job_id == job_id)).scalars())
        connection.execute(sa.delete(FILES).where(FILES.c.job_id == job_id))
        return own - frozenset(connection.execute(sa.select(FILES.c.sha256).where(FILES.c.sha256.in_(own))).scalars())

    def all(self) -> frozenset[str]:
        """Return the digests of all files that a job needs."""
        with self._engine.connect() as connection:
            return frozenset(connection.execute(sa.select(FILES.c.sha256).distinct()).scalars())


def files_in(artifacts: Mapping[str, object]) -> tuple[StoredFile, ...]:
    """Return the files of artifacts in their stored form."""
    found = [file for file in artifacts.values() if isinstance(file, Mapping)]
    return tuple(StoredFile(str(file["sha256"]), int(file.get("size_bytes", 0))) for file in found)


_METADATA = sa.MetaData()
FILES = sa.Table(
    "job_files",
    _METADATA,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("job_id", sa.String(64), primary_key=True, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
)
