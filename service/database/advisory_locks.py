"""Locks that processes share through Postgres: held by a session, and free the moment that it ends, however it ends.

https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from service.database.engine import is_postgres, names_postgres, open_session


def lock_key(name: str) -> int:
    """Return the number of the lock of a name: 64 bits with a sign."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


@contextmanager
def database_lock(engine: sa.Engine, name: str) -> Iterator[None]:
    """Let one process at a time into the block; on SQLite, which one process uses, everybody."""
    if not is_postgres(engine):
        yield
        return
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock_key(name))))
        yield


@contextmanager
def tried_database_lock(engine: sa.Engine, name: str) -> Iterator[bool]:
    """Give whether nobody else holds the lock, which is held during the block if so; on SQLite always."""
    if not is_postgres(engine):
        yield True
        return
    with engine.begin() as connection:
        yield bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(lock_key(name)))).scalar_one())


@contextmanager
def held_lock(engine: sa.Engine, name: str) -> Iterator[None]:
    """Hold a lock during the block, beside others who may hold it too: it tells whoever asks ``is_lock_held``, and keeps nobody out."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock_shared(lock_key(name))))
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock_shared(lock_key(name))))


def is_lock_held(engine: sa.Engine, name: str) -> bool:
    """Return whether anybody holds a lock now, on Postgres."""
    with engine.connect() as connection:
        return lock_key(name) in held_locks(connection)


def held_locks(connection: sa.Connection) -> frozenset[int]:
    """Return the numbers of the locks of this database that sessions hold."""
    return frozenset(connection.execute(_HELD).scalars())


@contextmanager
def session_lock(url: str, name: str) -> Iterator[None]:
    """Let one process at a time into the block, while nobody has a transaction open: statements that wait for all of these can be given.

    Args:
        url: Of the database; on SQLite, which one process uses, everybody may enter.
        name: Of the lock.
    """
    if not names_postgres(url):
        yield
        return
    session = open_session(url)
    try:
        while not session.execute(sa.select(sa.func.pg_try_advisory_lock(lock_key(name)))).scalar_one():
            time.sleep(_RETRY_SECONDS)
        yield
    finally:
        session.close()
        session.engine.dispose()


class SharedLock:
    """A lock of this process's threads and, on Postgres, of all processes. Used with ``with``; not reentrant."""

    def __init__(self, engine: sa.Engine, name: str) -> None:
        """Make one; ``name`` tells it from others of the same database."""
        self._engine, self._name = engine, name
        self._threads = threading.Lock()
        self._held = ExitStack()  # touched only by whoever holds the lock of the threads

    def __enter__(self) -> Self:
        self._threads.acquire()
        try:
            self._held.enter_context(database_lock(self._engine, self._name))
        except BaseException:
            self._threads.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._held.pop_all().__exit__(kind, error, trace)
        finally:
            self._threads.release()


# Locks of 64-bit numbers that sessions of this database hold: https://www.postgresql.org/docs/current/view-pg-locks.html
_HELD = sa.text(
    "SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_RETRY_SECONDS = 0.1
