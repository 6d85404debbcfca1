"""What two processes on one database and one folder share, and what each keeps for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from service.api.live.readiness import Readiness
from service.database.advisory_locks import lock_key, tried_database_lock
from service.database.role import Role
from service.errors import ProcessNameInUseError, StorageError
from service.jobs.faults.endings import ServerStopping, Tenure
from service.jobs.resources import Deps, Pipeline, open_deps
from service.jobs.upkeep.periodic import by_one
from service.settings import Settings
from tests.fakes import FakePipeline
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer

Open = Callable[[str, Role], Deps]


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
def opened(url: str, tmp_path: Path) -> Iterator[Open]:
    """Opens the belongings of processes of one deployment, which are closed at the end."""
    made: list[Deps] = []

    def make(name: str, role: Role) -> Deps:
        settings = Settings(
            data_dir=tmp_path / f"data-{name}-{len(made)}",
            database_url=url,
            shared_dir=tmp_path / "shared",
            executor_id=name,
            lease_seconds=2.0,
        )
        pipeline = Pipeline("fake-1", FakePipeline(tmp_path / "record").optimize)
        made.append(open_deps(settings, pipeline=pipeline, stages="tests.fake_stages", role=role))
        return made[-1]

    yield make
    for deps in made:
        deps.close()


def test_files_of_one_are_those_of_all(opened: Open, tmp_path: Path) -> None:
    api, worker = opened("api", Role.API), opened("one", Role.CPU)
    with api.artifacts.writer(0) as writer:
        writer.write(b"model")
        stored = writer.commit()
    assert worker.artifacts.find(stored.sha256) == stored
    assert api.workspace("job") == worker.workspace("job") == tmp_path / "shared" / "jobs" / "job"
    assert (api.name, worker.name, worker.role) == ("api", "one", Role.CPU)


def test_no_upload_is_taken_into_a_folder_that_only_this_process_sees(opened: Open, tmp_path: Path) -> None:
    api = opened("api", Role.API)
    (tmp_path / "shared").rename(tmp_path / "away")
    (tmp_path / "shared").mkdir()
    with pytest.raises(StorageError, match="shared folder"):
        api.uploads_of("default")


def test_an_upload_in_progress_outlasts_the_start_of_another_process(opened: Open) -> None:
    api = opened("api", Role.API)
    with api.artifacts.writer(0) as writer:
        writer.write(b"first half, ")
        opened("one", Role.CPU)
        writer.write(b"second half")
        stored = writer.commit()
    with api.artifacts.open(stored.sha256) as file:
        assert file.read() == b"first half, second half"


def test_an_api_is_ready_while_a_worker_lives(opened: Open) -> None:
    now = [0.0]
    readiness = Readiness(opened("api", Role.API), lambda: now[0])
    missing = {"worker": "no process that runs jobs is alive. Start one: `worker --role cpu`."}
    assert readiness.problems() == missing
    worker = opened("one", Role.CPU)
    now[0] = 10.0
    assert readiness.problems() == {}
    assert worker.membership is not None
    worker.membership.lease.close()
    now[0] = 20.0
    assert readiness.problems() == missing


def test_a_second_process_of_one_name_is_refused(opened: Open) -> None:
    opened("one", Role.CPU)
    with pytest.raises(ProcessNameInUseError, match="'one'"):
        opened("one", Role.CPU)


def test_one_process_at_a_time_does_what_is_for_one(opened: Open) -> None:
    api, other = opened("api", Role.API), opened("other", Role.API)
    calls: list[str] = []
    work = by_one(api, "retention", lambda: calls.append("done"))
    with tried_database_lock(other.store.engine, "retention") as is_held:
        assert is_held
        work()
    assert calls == []
    work()
    assert calls == ["done"]


def test_what_was_begun_under_a_lost_lease_is_over_for_good(opened: Open, url: str) -> None:
    deps = opened("one", Role.CPU)
    tenure = Tenure(deps)
    assert not tenure.is_over()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as other:
        held = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND ((classid::bigint << 32) | objid::bigint) = %s"
        found = other.execute(held, (lock_key("one"),)).fetchone()
        assert found is not None
        other.execute("SELECT pg_terminate_backend(%s)", found)
        other.execute("SELECT pg_advisory_lock(%s)", (lock_key("one"),))
        wait_until(lambda: deps.lease_number() is None, 20)
        assert tenure.is_lost()
        with pytest.raises(ServerStopping):
            Tenure(deps)
    wait_until(lambda: deps.lease_number() == 2, 20)
    assert tenure.is_over()
    assert not Tenure(deps).is_over()
