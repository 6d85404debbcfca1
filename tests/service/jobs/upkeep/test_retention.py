from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import NotFoundError, RemovedError
from service.jobs.records import StoredFile
from service.jobs.resources import Deps
from service.jobs.upkeep.retention import GRACE_SECONDS, TOLD_DAYS, collect_old
from service.settings import Settings
from tests.fakes import FakeClock
from tests.service.jobs.test_store import new_job
from tests.service.launch_server import fake_deps

DAY = 24 * 3600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def deps(tmp_path: Path, clock: FakeClock) -> Iterator[Deps]:
    deps = fake_deps(Settings(data_dir=tmp_path / "data"), tmp_path / "record", clock=clock)
    yield deps
    deps.close()


def stored(deps: Deps, data: bytes, *, upload: bool = False) -> StoredFile:
    with deps.artifacts.writer(len(data) if upload else None) as writer:
        writer.write(data)
        return writer.commit()


def upload(deps: Deps, clock: FakeClock, data: bytes) -> str:
    file = stored(deps, data, upload=True)
    mark = deps.settings.data_dir / "store" / "uploads" / file.sha256
    os.utime(mark, (clock().timestamp(), clock().timestamp()))
    return file.sha256


def finished(deps: Deps, name: str, data: bytes) -> str:
    deps.store.create(new_job(name))
    deps.store.start(name)
    file = stored(deps, data)
    deps.store.succeed(name, {}, "engine.onnx", {"engine.onnx": file})
    return file.sha256


def collect(deps: Deps, **settings: float) -> list[str]:
    forgotten: list[str] = []
    changed = dataclasses.replace(deps.settings, **settings)  # type: ignore[arg-type]  # each is given as its field wants it
    collect_old(dataclasses.replace(deps, settings=changed), forgotten.append)
    return forgotten


def test_nothing_goes_unless_the_operator_says_so(deps: Deps, clock: FakeClock) -> None:
    engine, given = finished(deps, "old", b"engine"), upload(deps, clock, b"given")
    clock.advance(9999 * DAY)
    assert collect(deps) == []
    assert deps.artifacts.find(engine)
    assert deps.artifacts.find(given)


def test_old_jobs_and_uploads_go_and_say_why(deps: Deps, clock: FakeClock) -> None:
    old, old_upload = finished(deps, "old", b"old engine"), upload(deps, clock, b"old upload")
    deps.store.create(new_job("waits"))
    clock.advance(20 * DAY)
    young, young_upload = finished(deps, "young", b"young engine"), upload(deps, clock, b"young upload")
    clock.advance(11 * DAY)

    assert collect(deps, retention_days=30.0) == ["old"]

    with pytest.raises(RemovedError, match="job old: the server keeps finished jobs for 30 days, and it was removed, at 2026-12-24"):
        deps.store.get("old")
    assert [deps.artifacts.find(sha256) is None for sha256 in (old, old_upload, young, young_upload)] == [True, True, False, False]
    assert {row.id for row in deps.store.rows(limit=9)} == {"young", "waits"}


def test_a_removed_job_is_told_of_for_weeks_and_then_as_if_it_had_never_been(deps: Deps, clock: FakeClock) -> None:
    for name in ("early", "late"):
        finished(deps, name, b"engine")
        deps.store.remove(name, "it was deleted by a request")
        clock.advance(DAY)
    clock.advance((TOLD_DAYS - 2) * DAY)  # since the first went
    collect(deps)
    for name in ("early", "late"):
        with pytest.raises(RemovedError, match="it was deleted by a request"):
            deps.store.get(name)
    clock.advance(60)
    collect(deps)
    with pytest.raises(RemovedError, match="it was deleted by a request"):
        deps.store.get("late")
    with pytest.raises(NotFoundError, match="job 'early': there is no such job, or it was removed long ago"):
        deps.store.get("early")


def test_a_removed_job_is_told_of_as_long_as_finished_ones_are_kept(deps: Deps, clock: FakeClock) -> None:
    finished(deps, "gone", b"engine")
    deps.store.remove("gone", "it was deleted")
    clock.advance(2 * TOLD_DAYS * DAY)
    collect(deps, retention_days=2 * TOLD_DAYS + 1)
    with pytest.raises(RemovedError):
        deps.store.get("gone")
    clock.advance(2 * DAY)
    collect(deps, retention_days=2 * TOLD_DAYS + 1)
    with pytest.raises(NotFoundError):
        deps.store.get("gone")


def test_a_removed_job_whose_folder_is_still_there_is_not_forgotten_and_becomes_no_job_again(deps: Deps, clock: FakeClock) -> None:
    finished(deps, "gone", b"engine")
    deps.store.remove("gone", "it was deleted")
    deps.workspace("gone").mkdir(parents=True)
    clock.advance(9999 * DAY)
    collect(deps)
    with pytest.raises(RemovedError):
        deps.store.get("gone")


def test_a_great_many_removed_jobs_are_forgotten(deps: Deps, clock: FakeClock) -> None:
    names = [f"job-{number}" for number in range(1203)]
    with deps.store.engine.begin() as connection:
        statement = sa.text("INSERT INTO removed_jobs (id, tenant, at, why) VALUES (:id, 'default', 0.0, 'it was deleted')")
        connection.execute(statement, [{"id": name} for name in names])
    assert deps.store.forget_removed(clock().timestamp(), lambda job_id: job_id == "job-7") == 1202
    with deps.store.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT id FROM removed_jobs")).scalars().all() == ["job-7"]


def test_upload_that_was_named_again_is_young(deps: Deps, clock: FakeClock) -> None:
    given = upload(deps, clock, b"given")
    clock.advance(31 * DAY)
    upload(deps, clock, b"given")
    collect(deps, retention_days=30.0)
    assert deps.artifacts.find(given)


def test_upload_has_time_to_become_a_job(deps: Deps, clock: FakeClock) -> None:
    given = upload(deps, clock, b"given")
    clock.advance(GRACE_SECONDS - 60)
    collect(deps, retention_days=0.0, retention_bytes=0)
    assert deps.artifacts.find(given)
    clock.advance(120)
    collect(deps, retention_days=0.0)
    assert deps.artifacts.find(given) is None


def test_the_oldest_go_until_the_rest_has_room(deps: Deps, clock: FakeClock) -> None:
    files = []
    for name in "abc":
        files.append(finished(deps, name, name.encode() * 100))
        clock.advance(DAY)
        files.append(upload(deps, clock, name.upper().encode() * 100))
        clock.advance(DAY)

    assert collect(deps, retention_bytes=350) == ["a", "b"]

    assert [deps.artifacts.find(sha256) is None for sha256 in files] == [True, True, True, False, False, False]
    with pytest.raises(RemovedError, match="the server keeps 350 bytes of results, and it was removed as the oldest"):
        deps.store.get("a")
    assert collect(deps, retention_bytes=350) == []


def test_file_that_a_younger_job_has_too_stays(deps: Deps, clock: FakeClock) -> None:
    shared = finished(deps, "old", b"the same engine")
    clock.advance(20 * DAY)
    finished(deps, "young", b"the same engine")
    clock.advance(11 * DAY)
    collect(deps, retention_days=30.0)
    assert deps.artifacts.find(shared)


def test_a_removed_upload_is_nobodys_and_counts_for_nobody(deps: Deps, clock: FakeClock) -> None:
    file = stored(deps, b"given", upload=True)
    mark = deps.settings.data_dir / "store" / "uploads" / file.sha256
    os.utime(mark, (clock().timestamp(), clock().timestamp()))
    deps.store.owners.add("default", file)
    assert deps.store.admission.usage("default")[1].stored_bytes == 5
    clock.advance(10 * DAY)
    collect(deps, retention_days=1)
    assert not deps.store.owners.has("default", file.sha256)
    assert deps.store.admission.usage("default")[1].stored_bytes == 0
