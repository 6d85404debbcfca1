from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.database.engine import open_engine
from service.database.members import Member, Members
from service.database.membership import default_name, join
from service.database.role import Role
from service.errors import ProcessNameInUseError
from service.settings import Settings
from tests.faults.server_process import wait_until
from tests.postgres_server import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


def settings(url: str, name: str | None = "one") -> Settings:
    return Settings(database_url=url, shared_dir=Path("shared"), executor_id=name, lease_seconds=2.0)


def test_alive_is_who_holds_a_lease(engine: sa.Engine, url: str) -> None:
    one = join(engine, settings(url), url, Role.CPU, "v1", None)
    two = join(engine, settings(url, "two"), url, Role.GPU, "v1", "L4")
    assert one.members.alive() == (one.member, two.member)
    assert (two.member.role, two.member.gpu, two.member.pid) == (Role.GPU, "L4", os.getpid())
    with one.members.taken_as_dead("two") as is_dead:
        assert not is_dead
    two.lease.close()
    wait_until(lambda: one.members.alive() == (one.member,), 10)  # Postgres sees that a session is closed a moment later
    assert one.members.all() == (one.member, two.member)
    with one.members.taken_as_dead("two") as is_dead:
        assert is_dead
    one.lease.close()


def test_a_second_process_of_a_name_is_told_who_has_it(engine: sa.Engine, url: str) -> None:
    first = join(engine, settings(url), url, Role.CPU, "v1", None)
    with pytest.raises(ProcessNameInUseError, match=rf"another one works under this name: process {os.getpid()} on host") as caught:
        join(engine, settings(url), url, Role.CPU, "v1", None)
    assert "ONNX_TRT_OPTIMIZER_EXECUTOR_ID" in str(caught.value.fix)
    first.lease.close()


def test_a_process_that_comes_back_has_one_row(engine: sa.Engine, url: str) -> None:
    first = join(engine, settings(url), url, Role.CPU, "v1", None)
    first.lease.close()
    again = join(engine, settings(url), url, Role.API, "v2", None)
    assert again.members.all() == (replace(first.member, role=Role.API, version="v2"),)
    again.lease.close()


def test_a_name_that_nobody_gave_tells_host_role_and_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node-7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert default_name(Role.CPU, None) == "node-7:cpu"
    assert default_name(Role.GPU, "L4") == "node-7:gpu:L4:3"


def test_an_unknown_process_is_not_found(engine: sa.Engine) -> None:
    members = Members(engine)
    assert members.find("nobody") is None
    members.note(Member("one", Role.CPU, "v1", "node", 1))
    assert members.find("one") == Member("one", Role.CPU, "v1", "node", 1)
    assert members.alive() == ()


def test_what_a_worker_measures_parts_with_is_known_to_all(engine: sa.Engine, url: str) -> None:
    worker = join(engine, settings(url), url, Role.GPU, "v1", "L4", "CUDAExecutionProvider")
    assert Members(engine).alive() == (worker.member,)
    assert worker.member.probes == "CUDAExecutionProvider"
    worker.lease.close()


def test_the_table_of_an_earlier_version_gets_what_it_lacks_and_keeps_its_rows(engine: sa.Engine) -> None:
    columns = "name VARCHAR(255) PRIMARY KEY, role VARCHAR(8), version VARCHAR(64), host VARCHAR(255), pid INTEGER, gpu VARCHAR(255)"
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE processes ({columns})"))
        connection.execute(sa.text("INSERT INTO processes VALUES ('old', 'gpu', 'v0', 'node', 1, 'L4')"))
    members = Members(engine)
    assert members.find("old") == Member("old", Role.GPU, "v0", "node", 1, "L4", None)
    members.note(Member("old", Role.GPU, "v1", "node", 2, "L4", "CPUExecutionProvider"))
    assert members.all() == (Member("old", Role.GPU, "v1", "node", 2, "L4", "CPUExecutionProvider"),)
