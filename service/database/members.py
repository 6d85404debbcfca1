"""The processes that share the database: what each is for, and which of them are alive.

Alive is who holds the lock of its name, as Postgres itself knows; rows of others stay until the process comes back or is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from service.database.advisory_locks import held_locks, lock_key
from service.database.missing_columns import add_missing_columns
from service.database.role import Role


@dataclass(frozen=True, slots=True)
class Member:
    """A process.

    Attributes:
        name: Its own among all, the same after a restart.
        role: What it is for.
        version: Of the pipeline; it finishes only jobs that were begun under the same.
        host: The machine.
        pid: On that machine.
        gpu: Product name of the GPU whose stages it runs.
        probes: The provider of ONNX Runtime with which it measures parts of stages while that GPU is idle; None: it does not.
    """

    name: str
    role: Role
    version: str
    host: str
    pid: int
    gpu: str | None = None
    probes: str | None = None


class Members:
    """A row for each process that ever worked on the database. Safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        """Create the table where it is missing, and what that of an earlier version lacks."""
        self._engine = engine
        _METADATA.create_all(engine)
        add_missing_columns(engine, _MEMBERS)

    def note(self, member: Member) -> None:
        """Write or replace the row of a process that has its lease."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_MEMBERS).where(_MEMBERS.c.name == member.name))
            connection.execute(sa.insert(_MEMBERS).values({**asdict(member), "role": member.role.value}))

    def find(self, name: str) -> Member | None:
        """Return what is known of a process, alive or not."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_MEMBERS).where(_MEMBERS.c.name == name)).mappings().first()
        return None if row is None else _member(row)

    def all(self) -> tuple[Member, ...]:
        """Return every process that is known, by name."""
        with self._engine.connect() as connection:
            return tuple(map(_member, connection.execute(sa.select(_MEMBERS).order_by(_MEMBERS.c.name)).mappings()))

    def gpus(self) -> frozenset[str]:
        """Return the types of GPU that any process ever had, alive or not; asked for each job, so all processes are not read for it."""
        query = sa.select(_MEMBERS.c.gpu).where(_MEMBERS.c.role == Role.GPU.value, _MEMBERS.c.gpu.is_not(None)).distinct()
        with self._engine.connect() as connection:
            return frozenset(connection.execute(query).scalars())

    def alive(self) -> tuple[Member, ...]:
        """Return the processes that hold their lease, by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_MEMBERS).order_by(_MEMBERS.c.name)).mappings().all()
            held = held_locks(connection)
        return tuple(_member(row) for row in rows if lock_key(row["name"]) in held)

    @contextmanager
    def taken_as_dead(self, name: str) -> Iterator[bool]:
        """Give whether a process is dead; while the block runs it cannot come back to life under that name."""
        with self._engine.begin() as connection:
            yield bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(lock_key(name)))).scalar_one())


def _member(row: sa.RowMapping) -> Member:
    return Member(row["name"], Role(row["role"]), row["version"], row["host"], row["pid"], row["gpu"], row["probes"])


_METADATA = sa.MetaData()
_MEMBERS = sa.Table(
    "processes",
    _METADATA,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("role", sa.String(8), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("gpu", sa.String(255)),
    sa.Column("probes", sa.String(64)),
)
