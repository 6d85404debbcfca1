from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.database.advisory_locks import SharedLock, database_lock, held_lock, is_lock_held, lock_key, tried_database_lock
from service.database.engine import open_engine
from tests.postgres_server import PostgresServer


@pytest.fixture
def engines(postgres: PostgresServer) -> Iterator[tuple[sa.Engine, sa.Engine]]:
    """Two processes, as far as the database can tell."""
    url = postgres.create_database()
    pair = (open_engine(url), open_engine(url))
    yield pair
    for engine in pair:
        engine.dispose()


def test_keys_fit_the_database_and_differ() -> None:
    keys = {lock_key(f"host-{number}") for number in range(1000)}
    assert len(keys) == 1000
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_one_process_at_a_time_holds_a_lock(engines: tuple[sa.Engine, sa.Engine]) -> None:
    first, second = engines
    with database_lock(first, "a"):
        with tried_database_lock(second, "a") as is_held:
            assert not is_held
        with tried_database_lock(second, "b") as is_held:
            assert is_held
    with tried_database_lock(second, "a") as is_held:
        assert is_held


def test_a_shared_lock_is_one_of_threads_and_processes(engines: tuple[sa.Engine, sa.Engine]) -> None:
    mine, other = SharedLock(engines[0], "filing"), SharedLock(engines[1], "filing")
    order: list[str] = []

    def wait(lock: SharedLock, name: str) -> None:
        with lock:
            order.append(name)

    with mine:
        threads = [threading.Thread(target=wait, args=(lock, name)) for lock, name in ((mine, "thread"), (other, "process"))]
        for thread in threads:
            thread.start()
            thread.join(0.2)
        order.append("first")
    for thread in threads:
        thread.join(10)
    assert order[0] == "first"
    assert sorted(order[1:]) == ["process", "thread"]


def test_a_shared_lock_is_free_after_an_error(engines: tuple[sa.Engine, sa.Engine]) -> None:
    lock = SharedLock(engines[0], "filing")
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    with lock, tried_database_lock(engines[1], "filing") as is_held:
        assert not is_held


def test_sqlite_which_one_process_uses_needs_no_lock(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'own.sqlite'}")
    with database_lock(engine, "a"), tried_database_lock(engine, "a") as is_held:
        assert is_held
    with SharedLock(engine, "a"):
        pass
    engine.dispose()


def test_a_lock_that_is_only_told_of_keeps_nobody_out_and_is_gone_after_its_block(engines: tuple[sa.Engine, sa.Engine]) -> None:
    first, second = engines
    with held_lock(first, "wanted"), held_lock(second, "wanted"):
        assert is_lock_held(second, "wanted")
        assert not is_lock_held(second, "other")
    assert not is_lock_held(second, "wanted")
    with pytest.raises(ZeroDivisionError), held_lock(first, "wanted"):
        raise ZeroDivisionError
    assert not is_lock_held(second, "wanted")
