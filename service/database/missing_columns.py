"""What brings a table of an earlier version up to date."""

from __future__ import annotations

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
