"""Finds out whether a connection that comes out of a pool still is one, without a question to the server wherever that can be told here.

SQLAlchemy's own ``pool_pre_ping`` asks the server each time, so that each look at the database is two transactions. A server that ends a
session, or dies, closes the socket: then there is something to read on a connection on which nothing is expected, which the kernel says at
once. Where packets vanish nobody is told; keepalives (see ``engine.reach``) find that out in seconds, and the kernel says so as well.
"""

from __future__ import annotations

import select
import time

import psycopg
import sqlalchemy as sa


def checked_pool() -> dict[str, object]:
    """Return arguments of ``sqlalchemy.create_engine`` for a pool of connections to Postgres that are checked as they come out of it.

    The one that was used last comes first, so that few are used where few are needed.
    """
    return {"pool_pre_ping": False, "pool_use_lifo": True, "pool_events": [(_check, "checkout"), (_note_use, "checkin")]}


def _note_use(connection: psycopg.Connection | None, record: sa.pool.ConnectionPoolEntry) -> None:
    if connection is not None:  # else it is closed already
        record.info[_USED_AT] = time.monotonic()


def _check(connection: psycopg.Connection, record: sa.pool.ConnectionPoolEntry, _proxy: object) -> None:
    """Let the pool open another connection, and drop the rest of its kind, where this one has ended."""
    used_at = record.info.get(_USED_AT)
    if used_at is None:  # it was opened just now
        return
    try:
        if time.monotonic() - used_at >= SURE_SECONDS or _has_something_to_say(connection):
            _ask(connection)
    except (psycopg.Error, OSError) as error:
        raise sa.exc.InvalidatePoolError from error


def _has_something_to_say(connection: psycopg.Connection) -> bool:
    """Whether the kernel has bytes, the end or an error for a connection on which no answer is awaited."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _ask(connection: psycopg.Connection) -> None:
    was_autocommit = connection.autocommit
    connection.autocommit = True  # no transaction is left open
    connection.execute("SELECT 1", prepare=False)
    connection.autocommit = was_autocommit


SURE_SECONDS = 10.0  # unused for so long, a connection is asked whatever the kernel says
_USED_AT = "used_at"
