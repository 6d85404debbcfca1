"""How the database is opened: whoever writes to it, the server or the command line, meets the same waits and the same errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from service.jobs.storage.storage_errors import translate_database_errors


def open_database(url: str) -> sa.Engine:
    """Return the database's engine, which raises a ``StorageError`` within a few seconds, also where another process holds it locked.

    Args:
        url: A SQLAlchemy URL.
    """
    engine = sa.create_engine(url)
    translate_database_errors(engine)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def add_missing_columns(engine: sa.Engine, table: sa.Table) -> frozenset[str]:
    """Add the columns that the table of an earlier version lacks, empty in every row, and return their names."""
    there = {column["name"] for column in sa.inspect(engine).get_columns(table.name)}
    missing = [column for column in table.columns if column.name not in there]
    with engine.begin() as connection:
        for column in missing:
            kind = column.type.compile(engine.dialect)
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))
    return frozenset(column.name for column in missing)


def put_rows(engine: sa.Engine, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of an earlier SQLite database into the same table of a new one, as they were."""
    known = {column["name"] for column in sa.inspect(engine).get_columns(table)}
    with engine.begin() as connection:
        for row in rows:
            kept = {name: value for name, value in row.items() if name in known}
            places = ", ".join(f":{name}" for name in kept)
            connection.execute(sa.text(f"INSERT OR REPLACE INTO {table} ({', '.join(kept)}) VALUES ({places})"), kept)


def _prepare_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, for which SQLAlchemy has no type
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the workflow engine's writes
    cursor.execute("PRAGMA busy_timeout=3000")  # milliseconds; a caller is answered then, a job waits on
    cursor.close()
