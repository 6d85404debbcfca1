from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from service.database.advisory_locks import lock_key
from service.database.lease import Lease
from service.errors import ProcessNameInUseError, StorageError
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer

SECONDS = 2.0
Open = Callable[[str], Lease]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    """Makes leases, which are closed at the end."""
    made: list[Lease] = []

    def make(name: str) -> Lease:
        made.append(Lease(url, name, SECONDS))
        return made[-1]

    yield make
    for lease in made:
        lease.close()


def holder(url: str, name: str) -> int | None:
    """Return the process of the server whose session holds the lease of a name."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND ((classid::bigint << 32) | objid::bigint) = %s", (lock_key(name),)
        ).fetchone()
    return None if found is None else int(found[0])


def end_session(url: str, name: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (holder(url, name),))


def test_it_is_held_longer_than_the_server_bears_silence(opened: Open, url: str) -> None:
    lease = opened("one")
    assert lease.number() is None
    lease.acquire()
    first = holder(url, "one")
    time.sleep(SECONDS * 1.5)
    assert (lease.number(), holder(url, "one")) == (1, first)
    lease.close()
    assert (lease.number(), holder(url, "one")) == (None, None)


def test_one_process_at_a_time_has_a_name(opened: Open) -> None:
    opened("one").acquire()
    opened("two").acquire()
    started = time.monotonic()
    with pytest.raises(ProcessNameInUseError, match="process 'one': another one works under this name"):
        opened("one").acquire()
    assert time.monotonic() - started >= SECONDS  # so long the lease of a dead one may last


def test_a_lease_that_the_server_ended_is_taken_anew_and_is_another(opened: Open, url: str) -> None:
    lease = opened("one")
    lease.acquire()
    end_session(url, "one")
    wait_until(lambda: lease.number() == 2, 20)
    assert holder(url, "one") is not None


def test_a_lease_that_another_has_taken_is_not_taken_anew(opened: Open, url: str) -> None:
    lease = opened("one")
    lease.acquire()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        end_session(url, "one")
        other.execute("SELECT pg_advisory_lock(%s)", (lock_key("one"),))
        wait_until(lambda: lease.number() is None, 20)
        time.sleep(1.5)
        assert lease.number() is None
    wait_until(lambda: lease.number() == 2, 20)


def test_a_process_without_answers_counts_its_lease_as_gone_before_the_server_does(url: str) -> None:
    now = [0.0]
    lease = Lease(url, "one", 1000.0, clock=lambda: now[0])
    lease.acquire()
    now[0] = 600.0
    assert lease.number() == 1
    now[0] = 700.0
    assert lease.number() is None
    assert holder(url, "one") is not None
    lease.close()


def test_the_server_ends_a_silent_session(url: str) -> None:
    lease = Lease(url, "one", 1.0, clock=lambda: 0.0)
    assert lease._taken()  # without the thread that would ask
    wait_until(lambda: holder(url, "one") is None, 20)
    lease.close()


def test_no_server_is_a_fault_of_the_storage() -> None:
    with pytest.raises(StorageError):
        Lease("postgresql+psycopg://optimizer@127.0.0.1:1/none", "one", SECONDS).acquire()
