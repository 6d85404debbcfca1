"""Which objects unfinished jobs need: their inputs, and what their stages made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from engine_builder.workspace.workspace import FileRef
from service.jobs.job_table import JOBS
from service.jobs.records import JobState, StoredFile

CheckThere = Callable[[sa.Connection, Collection[str]], None]


@dataclass(frozen=True, slots=True)
class WorkFile:
    """A file of a job's folder: its name, its object, and the file that it belongs to, if nobody names it but that."""

    name: str
    stored: StoredFile
    owner: str | None = None


class WorkFiles:
    """A row for each content of each file. Safe to share between threads and processes."""

    def __init__(self, engine: sa.Engine, check_there: CheckThere, clock: Callable[[], datetime]) -> None:
        """Create the table where it is missing.

        Args:
            engine: Of the database.
            check_there: Keeps objects until the end of a transaction; see ``Catalogue.check_there``.
            clock: The present, in UTC.
        """
        self._engine = engine
        self._check_there = check_there
        self._clock = clock
        _METADATA.create_all(engine)

    def note(self, job_id: str, files: Sequence[WorkFile]) -> None:
        """Note files of a job, whose objects are there.

        Raises:
            ObjectStoreError: One is not.
        """
        if not files:
            return
        now = self._clock().timestamp()
        rows = {
            (file.name, file.stored.sha256): {
                "job_id": job_id,
                "name": file.name,
                "sha256": file.stored.sha256,
                "size_bytes": file.stored.size_bytes,
                "owner": file.owner,
                "noted_at": now,
            }
            for file in sorted(files, key=lambda file: file.owner is not None)  # one that is named too belongs where it belongs
        }
        again = {"noted_at": now, "owner": sa.func.coalesce(insert(WORK).excluded.owner, WORK.c.owner)}
        statement = insert(WORK).values(list(rows.values()))
        with self._engine.begin() as connection:
            self._check_there(connection, [sha256 for _, sha256 in rows])
            connection.execute(statement.on_conflict_do_update(index_elements=["job_id", "name", "sha256"], set_=again))

    def beside(self, job_id: str, owner: str) -> tuple[FileRef, ...]:
        """Return the files that belong to another, each with its latest content."""
        query = sa.select(WORK.c.name, WORK.c.sha256).where(WORK.c.job_id == job_id, WORK.c.owner == owner).order_by(WORK.c.noted_at)
        with self._engine.connect() as connection:
            latest: Mapping[str, str] = {row.name: row.sha256 for row in connection.execute(query)}
        return tuple(FileRef(name, sha256) for name, sha256 in sorted(latest.items()))

    def largest(self, job_id: str, name: str) -> StoredFile | None:
        """Return the largest content of a file that only grows."""
        query = sa.select(WORK.c.sha256, WORK.c.size_bytes).where(WORK.c.job_id == job_id, WORK.c.name == name)
        with self._engine.connect() as connection:
            row = connection.execute(query.order_by(WORK.c.size_bytes.desc()).limit(1)).first()
        return None if row is None else StoredFile(row.sha256, row.size_bytes)

    def forget_smaller(self, job_id: str, name: str, size_bytes: int) -> None:
        """Need no longer what a file that only grows was before."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORK).where(WORK.c.job_id == job_id, WORK.c.name == name, WORK.c.size_bytes < size_bytes))

    def forget_under(self, job_id: str, folder: str) -> None:
        """Need no longer what lies in a folder of a job's folder, under these names."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORK).where(WORK.c.job_id == job_id, WORK.c.name.startswith(f"{folder}/", autoescape=True)))

    def has_any(self, job_id: str) -> bool:
        """Whether a job has files here."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(WORK.c.name).where(WORK.c.job_id == job_id).limit(1)).first() is not None

    def forget(self, job_id: str) -> None:
        """Need the files of a job no longer: it has ended."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORK).where(WORK.c.job_id == job_id))

    def forget_ended(self, seconds: float) -> None:
        """Need no longer what processes left that died as a job ended, or as one was submitted: so many seconds ago."""
        until = self._clock().timestamp() - seconds
        unfinished = sa.exists().where(JOBS.c.id == WORK.c.job_id, JOBS.c.state.in_([JobState.QUEUED.value, JobState.RUNNING.value]))
        just_ended = sa.exists().where(JOBS.c.id == WORK.c.job_id, JOBS.c.finished_at > until)
        with self._engine.begin() as connection:
            connection.execute(sa.delete(WORK).where(WORK.c.noted_at < until, ~unfinished, ~just_ended))


_METADATA = sa.MetaData()
WORK = sa.Table(
    "work_files",
    _METADATA,
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(1024), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.String(1024)),
    sa.Column("noted_at", sa.Float, nullable=False),
)
