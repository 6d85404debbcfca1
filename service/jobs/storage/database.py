"""What brings a database of an earlier version up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa


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
