from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from calibration.codec import json_from_value
from service.errors import DamagedDatabaseError
from service.jobs.records import JobState, NewJob, StoredFile
from service.jobs.storage.database_check import check_database, set_aside
from service.jobs.store import JobStore
from tests.fakes import FakeClock

JOBS = 200


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "service.sqlite"
    store = JobStore(f"sqlite:///{path}", FakeClock())
    for number in range(JOBS):
        store.create(NewJob(id=f"job-{number:03}", target="onnxruntime-cpu", config={"text": "x" * 1500}, inputs={}))
    store.cancel("job-000")
    store.close()
    return path


def damage_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)


def test_a_sound_database_and_a_missing_one_are_accepted(database: Path, tmp_path: Path) -> None:
    check_database(database)
    check_database(tmp_path / "missing.sqlite")
    assert not (tmp_path / "missing.sqlite").exists()


@pytest.mark.parametrize("harm", [damage_the_middle, lambda path: path.write_bytes(b"no database" * 1000)])
def test_a_damaged_one_is_refused_with_what_to_do(database: Path, harm: Callable[[Path], object]) -> None:
    harm(database)
    with pytest.raises(DamagedDatabaseError, match="it is damaged") as caught:
        check_database(database)
    assert "--rebuild" in caught.value.fix
    assert "backup" in caught.value.fix


def test_a_check_that_takes_too_long_is_left(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        check_database(database, seconds=0.0)
    assert "checked in part only" in caplog.text


def test_the_jobs_on_sound_pages_are_taken_over(database: Path) -> None:
    damage_the_middle(database)
    rows = set_aside(database, FakeClock()())
    assert not database.exists()
    aside = database.with_name("service.sqlite.damaged-20261123T100000")
    with closing(sqlite3.connect(aside)) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("SELECT * FROM jobs").fetchall()

    store = JobStore(f"sqlite:///{database}", FakeClock())
    assert JOBS - 10 < store.restore(rows["jobs"]) < JOBS
    assert store.get("job-000").state is JobState.CANCELLED
    assert store.get(f"job-{JOBS - 1}").new.config == {"text": "x" * 1500}
    store.close()


def test_a_row_that_makes_no_job_is_left_out(tmp_path: Path) -> None:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    row = {"id": "one", "state": "no such state", "progress": 0.0, "created_at": 0.0, "target": "t", "config": "{}", "inputs": "{}"}
    row |= {"request_sha256": "", "trials": "[]", "trial_count": 0, "artifacts": "{}", "unknown": 1}
    assert store.restore([row, row | {"id": "two", "state": "queued"}]) == 1
    assert [job.id for job in store.list()] == ["two"]
    store.close()


def test_a_restored_job_keeps_its_files(tmp_path: Path) -> None:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite'}", FakeClock())
    row = {"id": "one", "state": "succeeded", "progress": 1.0, "created_at": 0.0, "target": "t", "config": "{}", "inputs": "{}"}
    row |= {"request_sha256": "", "trials": "[]", "trial_count": 0}
    row |= {"artifacts": json.dumps(json_from_value({"engine.onnx": StoredFile("ab" * 32, 5)}))}
    assert store.restore([row]) == 1
    assert store.restore([row]) == 0  # it is here already
    assert store.file_uses.all() == {"ab" * 32}
    store.close()
