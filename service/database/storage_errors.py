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
        return None if error.orig is None else _from_sqlite(error.orig) or _from_postgres(error.orig, is_cut=error.connection_invalidated)
    if is_from_psycopg(error):
        return _from_postgres(error)
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
    if context.is_pre_ping:  # the pool itself finds that a session has ended, and opens another
        return None
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


def is_from_psycopg(error: BaseException) -> bool:
    """Whether Postgres's driver raised it, which is loaded only where it is used."""
    return type(error).__module__.partition(".")[0] == "psycopg"


def _from_postgres(error: BaseException, *, is_cut: bool = False) -> StorageError | None:
    """Return what an error of Postgres says by its SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html."""
    if not is_from_psycopg(error):
        return None
    state = getattr(error, "sqlstate", None)
    kind = type(error).__name__
    if not isinstance(state, str):  # it never came to an answer
        is_cut = is_cut or kind in {"OperationalError", "ConnectionTimeout"}
        return StorageError("database: it cannot be reached", fix=_REACH_FIX) if is_cut else None
    if state == _DISK_FULL:
        return InsufficientStorageError("database: the disk that it lies on is full", fix=_ROOM_FIX)
    if state in _BUSY:
        return DatabaseBusyError("database: other processes hold it locked", fix="Try again in a few seconds.")
    if state in _DAMAGED:
        return DamagedDatabaseError("database: it is damaged", fix="Ask the operator to restore it from a backup.")
    if state.startswith(_AWAY):
        return StorageError(f"database: it takes no work now (SQLSTATE {state})", fix=_REACH_FIX)
    return None


_DISK_FULL = "53100"
_BUSY = {"40001", "40P01", "55P03"}  # serialization_failure, deadlock_detected, lock_not_available
_DAMAGED = {"XX001", "XX002"}
# Connection, authorization, read-only, resources, shut down or restarting, ended for standing still, disk.
_AWAY = ("08", "28", "25006", "25P03", "53", "57P", "58")
_REACH_FIX = "Try again later, or ask the operator to look at the database server and the network to it."
_PRIMARY = 0xFF  # of an extended result code
_ROOM_FIX = "Try again later, or ask the operator to make room on the server's disk."
_DISK_FIX = "Try again later, or ask the operator to mend the disk or to mount it writable."
