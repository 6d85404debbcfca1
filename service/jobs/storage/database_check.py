"""Looks at the database before the server uses it, and takes what can be read from a damaged one.

A damaged page is found by SQLite's own quick check, which takes about a second for each 500 MB and is given a few seconds.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path

from service.database.storage_errors import REBUILD_FIX, storage_error
from service.errors import DamagedDatabaseError

logger = logging.getLogger(__name__)

Row = Mapping[str, object]


def check_database(path: Path, seconds: float = 5.0) -> None:
    """Check a database, as far as that goes in so many seconds.

    Args:
        path: Of the file; a missing one is fine.
        seconds: The most that it may take.

    Raises:
        DamagedDatabaseError: It is damaged; the error says what to do.
        StorageError: It cannot be read.
    """
    if not path.is_file():
        return
    until = time.monotonic() + seconds
    try:
        with closing(sqlite3.connect(path, timeout=seconds)) as connection:
            connection.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
            found = [str(line) for (line,) in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as exc:
        if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            logger.info("database %s: large, and checked in part only", path.name)
            return
        problem = storage_error(exc)
        if problem is None or not isinstance(problem, DamagedDatabaseError):
            raise exc if problem is None else problem from exc
        found = [str(exc)]
    if found != ["ok"]:
        raise DamagedDatabaseError(f"database {path}: it is damaged ({'; '.join(found)})", fix=REBUILD_FIX)


def set_aside(path: Path, now: datetime) -> Mapping[str, tuple[Row, ...]]:
    """Rename a database and return the rows that can be read of each of ``TABLES``, oldest first; a missing one has none."""
    aside = path.with_name(f"{path.name}.damaged-{now:%Y%m%dT%H%M%S}")
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(aside.with_name(aside.name + suffix))
    if not aside.exists():
        return {}
    rows = {table: _readable_rows(aside, table) for table in TABLES}
    found = ", ".join(f"{len(of_table)} of {table}" for table, of_table in rows.items())
    logger.warning("database %s: set aside as %s; rows that could be read from it: %s", path.name, aside.name, found)
    return rows


def _readable_rows(path: Path, table: str) -> tuple[Row, ...]:
    """Return what can be read from either end of a table: a damaged page hides the rows on it, and those behind it from that end."""
    rows: dict[int, Row] = {}
    for order in ("", "DESC"):
        try:
            with closing(sqlite3.connect(path)) as connection:
                connection.row_factory = sqlite3.Row
                for row in connection.execute(f"SELECT rowid AS {_ROWID}, * FROM {table} ORDER BY rowid {order}"):
                    kept = dict(row)
                    rows.setdefault(kept.pop(_ROWID), kept)
        except (sqlite3.Error, IndexError, UnicodeDecodeError) as exc:
            if "no such table" not in str(exc):  # of another version
                logger.warning("database %s: not all of %s can be read: %s", path.name, table, exc)
    return tuple(rows[key] for key in sorted(rows))


TABLES = (  # what is taken over; the last is of earlier versions
    *("jobs", "removed_jobs", "access_keys", "tenants", "tenant_usage", "file_owners", "encrypted_webhooks", "webhooks"),
)
_ROWID = "number_of_row"  # of which SQLite has one in every table
_STEPS = 200  # of the database's machine between two looks at the time
