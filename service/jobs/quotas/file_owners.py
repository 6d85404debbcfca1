"""Which tenant has which stored file: the same bytes are stored once, and whoever has not sent them does not know that they are here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from service.access.limits import check_limit
from service.access.tenants import Tenants
from service.jobs.job_table import JOBS
from service.jobs.live.file_uses import FILES
from service.jobs.records import StoredFile


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes a tenant has stored, and how many it may at most; None: any."""

    used_bytes: int
    limit_bytes: int | None
    now: datetime

    def check(self, size_bytes: int) -> None:
        """Accept a file of so many bytes.

        Raises:
            QuotaExceededError: There is no room for it.
        """
        check_limit("stored_bytes", self.used_bytes, self.limit_bytes, self.now, more=size_bytes)


class FileOwners:
    """A row for each file of each tenant that uploaded it. Safe to share between threads and processes."""

    def __init__(self, engine: sa.Engine, tenants: Tenants, clock: Callable[[], datetime]) -> None:
        """Create the table where it is missing.

        Args:
            engine: Of the database, which has the tables of jobs and their files.
            tenants: Their limits.
            clock: The present, in UTC.
        """
        self._engine = engine
        self._tenants = tenants
        self._clock = clock
        _METADATA.create_all(engine)

    def has(self, tenant: str, sha256: str) -> bool:
        """Whether a tenant uploaded a file, or a finished job of it left that file."""
        uploaded = sa.select(OWNERS.c.sha256).where(OWNERS.c.tenant == tenant, OWNERS.c.sha256 == sha256)
        left = sa.select(FILES.c.sha256).join(JOBS, JOBS.c.id == FILES.c.job_id).where(JOBS.c.tenant == tenant, FILES.c.sha256 == sha256)
        with self._engine.connect() as connection:
            return connection.execute(sa.union_all(uploaded, left).limit(1)).first() is not None

    def uploaded(self, tenant: str, sha256: str) -> bool:
        """Whether a tenant uploaded a file."""
        query = sa.select(OWNERS.c.sha256).where(OWNERS.c.tenant == tenant, OWNERS.c.sha256 == sha256)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def is_anyones(self, sha256: str) -> bool:
        """Whether any tenant uploaded a file."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(OWNERS.c.tenant).where(OWNERS.c.sha256 == sha256).limit(1)).first() is not None

    def room(self, tenant: str) -> Room:
        """Return what a tenant may still store."""
        limit_bytes = self._tenants.get(tenant).limits.stored_bytes
        with self._engine.connect() as connection:
            return Room(0 if limit_bytes is None else self.stored_bytes(connection, tenant), limit_bytes, self._clock())

    def add(self, tenant: str, file: StoredFile) -> bool:
        """Note that a tenant uploads a file, if there is room for it. Returns whether that is new.

        Raises:
            QuotaExceededError: The tenant may not store so much; nothing is noted.
        """
        with self._engine.begin() as connection:
            limits = self._tenants.locked(connection, tenant)
            known = sa.select(OWNERS.c.sha256).where(OWNERS.c.tenant == tenant, OWNERS.c.sha256 == file.sha256)
            if connection.execute(known).first() is not None:
                return False
            row = {"tenant": tenant, "sha256": file.sha256, "size_bytes": file.size_bytes}
            connection.execute(sa.insert(OWNERS).values(row))
            if limits.stored_bytes is not None:
                before = self.stored_bytes(connection, tenant) - file.size_bytes
                Room(before, limits.stored_bytes, self._clock()).check(file.size_bytes)
        return True

    def adopt(self, tenant: str, files: Iterable[StoredFile]) -> None:
        """Note files that were stored before there were tenants."""
        rows = [{"tenant": tenant, "sha256": file.sha256, "size_bytes": file.size_bytes} for file in files]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(OWNERS), rows)

    def forget(self, sha256s: Collection[str], tenant: str | None = None) -> None:
        """Forget who uploaded files that are removed; with a tenant, that this one did."""
        gone = sa.delete(OWNERS).where(OWNERS.c.sha256 == sa.bindparam("gone"))
        rows = [{"gone": sha256} for sha256 in sha256s]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(gone if tenant is None else gone.where(OWNERS.c.tenant == tenant), rows)

    def stored_bytes(self, connection: sa.Connection, tenant: str) -> int:
        """Return how many bytes a tenant has stored: uploads and what its finished jobs left, each file once."""
        uploaded = sa.select(OWNERS.c.sha256, OWNERS.c.size_bytes).where(OWNERS.c.tenant == tenant)
        left = sa.select(FILES.c.sha256, FILES.c.size_bytes).join(JOBS, JOBS.c.id == FILES.c.job_id).where(JOBS.c.tenant == tenant)
        files = sa.union(uploaded, left).subquery()
        return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(files.c.size_bytes), 0))).scalar_one())


_METADATA = sa.MetaData()
OWNERS = sa.Table(
    "file_owners",
    _METADATA,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True, index=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
)
