"""Tells what an error of the disk or the database means to a caller and to a job, whoever raised it."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from engine_builder.errors import StageStorageError
from service.disk_faults import ERRNOS
from service.disk_room import is_full
from service.errors import DamagedDatabaseError, DatabaseBusyError, InsufficientStorageError, StorageError

REBUILD_FIX = (
    "Stop the server, then put back service.sqlite from a backup, or start it once with `serve --rebuild`, which keeps what can be read "
    "and takes up again the jobs whose folders are there."
)


def storage_error(error: BaseException) -> StorageError | None:
    """Return what an error says of the disk or the database; None where it is about something else."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, StageStorageError):
        return StorageError(error.detail, fix=error.fix)
    if isinstance(error, sa.exc.DBAPIError):
        return None if error.orig is None else _from_sqlite(error.orig)
    if isinstance(error, sqlite3.Error):
        return _from_sqlite(error)
    if isinstance(error, OSError) and error.errno in ERRNOS:
        if is_full(error):
            return InsufficientStorageError(f"disk: {error.strerror}", fix=_ROOM_FIX)
        return StorageError(f"disk: {error.strerror}", fix=_DISK_FIX)
    return None


def translate_database_errors(engine: sa.Engine) -> None:
    """Let every connection of an engine raise what ``storage_error`` says in the place of the database's own error."""
    sa.event.listen(engine, "handle_error", _translated)


def _translated(context: sa.engine.ExceptionContext) -> StorageError | None:
    return storage_error(context.original_exception)


def _from_sqlite(error: BaseException) -> StorageError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(code, int):
        return None
    match code & _PRIMARY:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseBusyError("database: another process holds it locked", fix="Try again in a few seconds.")
        case sqlite3.SQLITE_FULL:
            return InsufficientStorageError("database: the disk that it lies on is full", fix=_ROOM_FIX)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DamagedDatabaseError(f"database: it is damaged ({error})", fix=REBUILD_FIX)
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
            return StorageError(f"database: its disk cannot be used ({error})", fix=_DISK_FIX)
    return None


_PRIMARY = 0xFF  # of an extended result code
_ROOM_FIX = "Try again later, or ask the operator to make room on the server's disk."
_DISK_FIX = "Try again later, or ask the operator to mend the disk or to mount it writable."
