from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.database.engine import open_engine
from service.database.wakeups import WakeUps, wake
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer

CHANNEL = "news"


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def woken(url: str) -> Iterator[list[float]]:
    """The moments at which a listener was woken; the first is that of its beginning."""
    moments: list[float] = []
    listener = WakeUps(url, CHANNEL, lambda: moments.append(time.monotonic()))
    listener.start()
    wait_until(lambda: len(moments) == 1, 20)
    yield moments
    listener.close()
    assert not listener._thread.is_alive()


def test_a_listener_is_woken_when_the_transaction_is_committed_and_not_before(woken: list[float], engine: sa.Engine) -> None:
    with engine.connect() as connection:
        wake(connection, CHANNEL)
        connection.rollback()
        wake(connection, "other_news")
        connection.commit()
        wake(connection, CHANNEL)
        time.sleep(0.3)
        assert len(woken) == 1
        connection.commit()
    wait_until(lambda: len(woken) == 2, 20)


def test_whoever_wakes_many_times_is_heard(woken: list[float], engine: sa.Engine) -> None:
    for _ in range(20):
        before = len(woken)
        with engine.begin() as connection:
            wake(connection, CHANNEL)
            wake(connection, CHANNEL)
        wait_until(lambda before=before: len(woken) > before, 20)  # type: ignore[misc]
    assert len(woken) == 21


def test_a_listener_whose_session_ended_listens_again_and_is_woken_for_what_it_missed(woken: list[float], engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"))
    wait_until(lambda: len(woken) == 2, 20)
    with engine.begin() as connection:
        wake(connection, CHANNEL)
    wait_until(lambda: len(woken) == 3, 20)


def test_on_sqlite_nobody_is_woken(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'own.sqlite'}")
    with engine.begin() as connection:
        wake(connection, CHANNEL)
    engine.dispose()
