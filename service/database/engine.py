"""Opens the database: a SQLite file of one server, or Postgres, which several processes share."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from service.database.storage_errors import translate_database_errors

POSTGRES = "postgresql"


def open_engine(url: str) -> sa.Engine:
    """Return an engine whose connections raise our own errors, and give up within seconds where the database cannot be reached.

    Args:
        url: A SQLAlchemy URL, ``sqlite:///...`` or ``postgresql+psycopg://...``.
    """
    if sa.make_url(url).get_backend_name() == POSTGRES:
        options: Mapping[str, object] = {
            "application_name": "onnx-trt-optimizer",
            **REACH,
            # A process that stands still in mid-change would hold up all the others.
            "options": f"-c idle_in_transaction_session_timeout={IDLE_SECONDS * 1000}",
        }
        engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=dict(options))
    else:
        engine = sa.create_engine(url, hide_parameters=True)  # its errors, which the log has, quote no values
        sa.event.listen(engine, "connect", _prepare_sqlite)
    translate_database_errors(engine)
    return engine


def open_session(url: str) -> sa.Connection:
    """Return a session of Postgres of its own, outside of any transaction; whoever closes it disposes of its engine.

    Raises:
        StorageError: The server cannot be reached.
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args=dict(REACH))
    translate_database_errors(engine)
    return engine.connect()


def is_postgres(engine: sa.Engine) -> bool:
    """Whether other processes may use the database too."""
    return engine.dialect.name == POSTGRES


def _prepare_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, for which SQLAlchemy has no type
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the workflow engine's writes
    cursor.execute("PRAGMA busy_timeout=3000")  # milliseconds; a caller is answered then, a job waits on
    cursor.close()


# How libpq finds out that the network or the other machine is gone: https://www.postgresql.org/docs/current/libpq-connect.html
REACH: Mapping[str, int] = {
    "connect_timeout": 5,  # seconds
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
IDLE_SECONDS = 600  # longer than it takes to store the files of a job
