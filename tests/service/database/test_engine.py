from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.database.engine import is_postgres, open_engine
from service.errors import DatabaseBusyError, StorageError
from tests.postgres_server import PostgresServer


@pytest.fixture
def engine(postgres: PostgresServer) -> Iterator[sa.Engine]:
    engine = open_engine(postgres.create_database())
    yield engine
    engine.dispose()


def test_only_postgres_is_for_several_processes(engine: sa.Engine, tmp_path: Path) -> None:
    assert is_postgres(engine)
    own = open_engine(f"sqlite:///{tmp_path / 'own.sqlite'}")
    assert not is_postgres(own)
    own.dispose()


def test_a_server_that_is_not_there_is_a_fault_of_the_storage() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        engine = open_engine(f"postgresql+psycopg://optimizer@127.0.0.1:{probe.getsockname()[1]}/none")
        with pytest.raises(StorageError, match="cannot be reached") as caught:
            engine.connect()
    assert caught.value.status == 503


def test_a_session_that_the_server_ends_is_a_fault_of_the_storage_and_the_next_one_works(engine: sa.Engine) -> None:
    with engine.connect() as connection, engine.connect() as other:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(StorageError):
            connection.execute(sa.text("SELECT 1"))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1


def test_a_session_that_ended_unseen_is_no_fault_at_all(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    other = open_engine(engine.url.render_as_string(hide_password=False))
    with other.connect() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one() != pid
    other.dispose()


def test_a_database_that_takes_no_changes_is_a_fault_of_the_storage(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        with pytest.raises(StorageError, match="25006"):
            connection.execute(sa.text("CREATE TABLE jobs (id int)"))


def test_a_lock_that_does_not_come_passes_by_itself(engine: sa.Engine) -> None:
    with engine.begin() as holder:
        holder.execute(sa.text("CREATE TABLE jobs (id int)"))
    with engine.begin() as holder, engine.begin() as waiter:
        holder.execute(sa.text("LOCK TABLE jobs"))
        waiter.execute(sa.text("SET LOCAL lock_timeout = 10"))
        with pytest.raises(DatabaseBusyError):
            waiter.execute(sa.text("LOCK TABLE jobs"))
        waiter.rollback()


def test_a_mistake_in_a_statement_is_no_fault_of_the_storage(engine: sa.Engine) -> None:
    with engine.connect() as connection, pytest.raises(sa.exc.ProgrammingError):
        connection.execute(sa.text("SELECT * FROM nowhere"))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_errors_quote_no_values(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The log has them, with their traces: of a row that is refused it shall not hold what is in the row."""
    url = f"sqlite:///{tmp_path / 'own.sqlite'}" if kind == "sqlite" else request.getfixturevalue("postgres").create_database()
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE rows (name TEXT UNIQUE, secret TEXT)")
    row = {"name": "one", "secret": "hush"}
    statement = sa.text("INSERT INTO rows VALUES (:name, :secret)")
    with engine.begin() as connection:
        connection.execute(statement, row)
    with pytest.raises(sa.exc.IntegrityError) as caught, engine.begin() as connection:
        connection.execute(statement, row)
    assert "hush" not in str(caught.value)
    engine.dispose()
