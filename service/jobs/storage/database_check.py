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

from service.errors import DamagedDatabaseError
from service.jobs.storage.storage_errors import REBUILD_FIX, storage_error

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


def set_aside(path: Path, now: datetime) -> tuple[Row, ...]:
    """Rename a database and return the rows of its jobs that can be read, oldest first; a missing one has none."""
    aside = path.with_name(f"{path.name}.damaged-{now:%Y%m%dT%H%M%S}")
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(aside.with_name(aside.name + suffix))
    if not aside.exists():
        return ()
    rows = _readable_rows(aside)
    logger.warning("database %s: set aside as %s; %d jobs could be read from it", path.name, aside.name, len(rows))
    return rows


def _readable_rows(path: Path) -> tuple[Row, ...]:
    """Return what can be read from either end of the table: a damaged page hides the rows on it, and those behind it from that end."""
    rows: dict[object, Row] = {}
    for query in ("SELECT * FROM jobs ORDER BY sequence", "SELECT * FROM jobs ORDER BY sequence DESC"):
        try:
            with closing(sqlite3.connect(path)) as connection:
                connection.row_factory = sqlite3.Row
                for row in connection.execute(query):
                    rows.setdefault(row["sequence"], dict(row))
        except (sqlite3.Error, IndexError, UnicodeDecodeError) as exc:
            logger.warning("database %s: not all jobs can be read: %s", path.name, exc)
    return tuple(rows[key] for key in sorted(rows, key=str))


_STEPS = 200  # of the database's machine between two looks at the time
