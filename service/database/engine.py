"""Opens the database: a SQLite file of one server, or Postgres, which several processes share."""

from __future__ import annotations

import sqlalchemy as sa

from service.database.connection_check import checked_pool
from service.database.storage_errors import translate_database_errors

POSTGRES = "postgresql"


def open_engine(url: str) -> sa.Engine:
    """Return an engine whose connections raise our own errors, and give up within seconds where the database cannot be reached.

    Args:
        url: A SQLAlchemy URL, ``sqlite:///...`` or ``postgresql+psycopg://...``.
    """
    if names_postgres(url):
        # A process that stands still in mid-change would hold up all the others.
        options = f"{reach()['options']} -c idle_in_transaction_session_timeout={IDLE_SECONDS * 1000}"
        arguments = {**reach(), "application_name": "onnx-trt-optimizer", "options": options}
        engine = sa.create_engine(url, hide_parameters=True, connect_args=arguments, **checked_pool())
    else:
        engine = sa.create_engine(url, hide_parameters=True, **few_connections())  # its errors, which the log has, quote no values
        sa.event.listen(engine, "connect", _prepare_sqlite)
    translate_database_errors(engine)
    return engine


def open_session(url: str) -> sa.Connection:
    """Return a session of Postgres of its own, outside of any transaction; whoever closes it disposes of its engine.

    Raises:
        StorageError: The server cannot be reached.
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True, connect_args=reach())
    translate_database_errors(engine)
    return engine.connect()


def names_postgres(url: str) -> bool:
    """Whether a URL names a Postgres."""
    return sa.make_url(url).get_backend_name() == POSTGRES


def reach() -> dict[str, object]:
    """Return what a connection to Postgres is opened with, so that either end finds out in seconds that the other one is gone.

    Where the network lets packets vanish nobody is told: the process would wait for its answer, and the server would keep what the process
    has locked, for as long as the kernel tries, a quarter of an hour and more.
    https://www.postgresql.org/docs/current/libpq-connect.html, .../runtime-config-connection.html
    """
    client = {f"keepalives_{name}": value for name, value in _SECONDS_BETWEEN.items()} | {"tcp_user_timeout": _UNANSWERED_MS}
    server = {f"tcp_keepalives_{name}": value for name, value in _SECONDS_BETWEEN.items()} | {"tcp_user_timeout": _UNANSWERED_MS}
    return {"connect_timeout": 5, **client, "options": " ".join(f"-c {name}={value}" for name, value in server.items())}


def check_answers(engine: sa.Engine) -> None:
    """Accept the database as one that answers now. To be asked before the workflow engine is, which waits for it without an end.

    Raises:
        StorageError: It does not, for seconds.
    """
    with engine.connect() as connection:
        connection.execute(sa.select(sa.literal(1)))


def few_connections() -> dict[str, object]:
    """Return arguments of ``sqlalchemy.create_engine`` for a pool that gives out the connection that was used last.

    Each connection keeps the statements that it prepared and pages of the file: taken in turns, all would come to keep all of them.
    """
    return {"pool_use_lifo": True}


def is_postgres(engine: sa.Engine) -> bool:
    """Whether other processes may use the database too."""
    return engine.dialect.name == POSTGRES


def _prepare_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, for which SQLAlchemy has no type
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the workflow engine's writes
    cursor.execute("PRAGMA busy_timeout=3000")  # milliseconds; a caller is answered then, a job waits on
    cursor.close()


IDLE_SECONDS = 600  # longer than it takes to store the files of a job
_SECONDS_BETWEEN = {
    "idle": 5,
    "interval": 2,
    "count": 3,
}  # of questions whether the other end is there: before the first, between, how many
_UNANSWERED_MS = (
    15_000  # after so long without an answer to what was sent the other end counts as gone; a cut of 5 s is outlasted, whenever it comes
)
