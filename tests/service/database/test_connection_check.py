from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from service.database import connection_check
from service.database.engine import open_engine
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer


@pytest.fixture
def engine(postgres: PostgresServer) -> Iterator[sa.Engine]:
    engine = open_engine(postgres.create_database())
    yield engine
    engine.dispose()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[psycopg.Connection]:
    """Connections of which the server was asked whether they live."""
    found: list[psycopg.Connection] = []
    ask = connection_check._ask

    def noted(connection: psycopg.Connection) -> None:
        found.append(connection)
        ask(connection)

    monkeypatch.setattr(connection_check, "_ask", noted)
    return found


def pid(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())


def test_a_connection_that_was_just_used_costs_no_question(engine: sa.Engine, asked: list[psycopg.Connection]) -> None:
    assert len({pid(engine) for _ in range(5)}) == 1
    assert asked == []


def test_one_that_was_long_unused_is_asked_and_left_as_it_was(
    engine: sa.Engine, asked: list[psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pid(engine)
    monkeypatch.setattr(connection_check, "SURE_SECONDS", 0.0)
    assert pid(engine) == first
    assert len(asked) == 1
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE TABLE undone (id int)"))
        connection.rollback()
    assert not sa.inspect(engine).has_table("undone")  # it is in no mode in which each statement counts at once


def test_a_connection_that_was_ended_is_found_before_it_is_used_and_all_of_its_time_with_it(
    engine: sa.Engine, asked: list[psycopg.Connection]
) -> None:
    with engine.connect() as one, engine.connect() as two:
        pids = [connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one() for connection in (one, two)]
    other = open_engine(engine.url.render_as_string(hide_password=False))
    with other.connect() as connection:
        for ended in pids:
            connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": ended})
    other.dispose()
    with engine.connect() as one, engine.connect() as two:
        found = [connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one() for connection in (one, two)]
    assert not set(found) & set(pids)
    assert len(asked) == 1


def test_a_notice_of_the_server_is_no_end(engine: sa.Engine, asked: list[psycopg.Connection]) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("LISTEN news"))
        connection.commit()
        first = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    other = open_engine(engine.url.render_as_string(hide_password=False))
    with other.begin() as connection:
        connection.execute(sa.text("NOTIFY news"))
    other.dispose()
    wait_until(lambda: connection_check._has_something_to_say(raw), 20)
    assert pid(engine) == first
    assert len(asked) == 1
