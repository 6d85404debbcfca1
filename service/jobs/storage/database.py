"""What is taken over from the database of an earlier version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa


def put_rows(engine: sa.Engine, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of an earlier SQLite database into the same table of a new one, as they were."""
    known = {column["name"] for column in sa.inspect(engine).get_columns(table)}
    with engine.begin() as connection:
        for row in rows:
            kept = {name: value for name, value in row.items() if name in known}
            places = ", ".join(f":{name}" for name in kept)
            connection.execute(sa.text(f"INSERT OR REPLACE INTO {table} ({', '.join(kept)}) VALUES ({places})"), kept)
