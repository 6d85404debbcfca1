from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.api.live.readiness import Readiness
from service.errors import StorageError
from service.jobs.resources import Deps
from service.jobs.store import JobStore
from service.settings import Settings
from tests.service.jobs.test_store import new_job
from tests.service.launch_server import fake_deps


class Seconds:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def deps(tmp_path: Path) -> Iterator[Deps]:
    deps = fake_deps(Settings(data_dir=tmp_path / "data"), tmp_path / "record")
    yield deps
    deps.close()


def test_a_server_that_can_work_is_ready(deps: Deps) -> None:
    assert Readiness(deps).problems() == {}


def test_a_disk_without_room_is_told(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    problems = Readiness(deps).problems()
    assert set(problems) == {"storage"}
    assert problems["storage"].startswith(f"disk: 1000 bytes are free, 0 more are needed and {256 * 2**20} have to stay free")
    assert "make room" in problems["storage"]


def test_a_database_that_cannot_be_written_to_is_told_and_usable_again(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_writable(_: JobStore) -> None:
        raise StorageError("database: its disk cannot be used", fix="Mend it.")

    clock = Seconds()
    readiness = Readiness(deps, clock)
    with monkeypatch.context() as broken:
        broken.setattr(JobStore, "check_writable", check_writable)
        assert readiness.problems() == {"storage": "database: its disk cannot be used. Mend it."}
    assert readiness.problems() != {}  # looked at a moment ago
    clock.now += 1
    assert readiness.problems() == {}


def test_a_database_that_another_process_holds_for_a_moment_is_no_problem(deps: Deps) -> None:
    other = sqlite3.connect(deps.settings.data_dir / "service.sqlite")
    other.execute("BEGIN IMMEDIATE")
    assert Readiness(deps).problems() == {}
    other.rollback()
    other.close()


def test_a_worker_that_takes_no_job_is_told(deps: Deps) -> None:
    clock = Seconds()
    readiness = Readiness(deps, clock)
    deps.store.create(new_job("one"))
    for clock.now, expected in ((0.0, {}), (29.0, {}), (31.0, {"worker": "jobs wait, and none was begun for 31 s"})):
        assert readiness.problems() == expected
    deps.store.start("one")
    deps.store.create(new_job("two"))
    clock.now = 90.0
    assert readiness.problems() == {}  # the second one waits for the first
    deps.store.cancel("one")
    clock.now = 100.0
    assert readiness.problems() == {}  # its turn comes now


def test_a_server_that_stops_is_not_ready(deps: Deps) -> None:
    deps.stopping.set()
    assert Readiness(deps).problems() == {"server": "it stops"}
