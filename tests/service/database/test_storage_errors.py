from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine_builder.errors import StageCrashedError, StageStorageError
from service.database.storage_errors import storage_error, translate_database_errors
from service.errors import DamagedDatabaseError, DatabaseBusyError, InsufficientStorageError, StorageError


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, InsufficientStorageError),
        (errno.EDQUOT, InsufficientStorageError),
        (errno.EIO, StorageError),
        (errno.EROFS, StorageError),
    ],
)
def test_errors_of_the_disk(number: int, kind: type[StorageError]) -> None:
    found = storage_error(OSError(number, os.strerror(number)))
    assert type(found) is kind
    assert os.strerror(number) in found.detail


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "no such file"), ValueError("x"), StageCrashedError("x", fix="y")])
def test_errors_about_something_else(error: Exception) -> None:
    assert storage_error(error) is None


def test_a_stage_under_which_the_disk_failed() -> None:
    found = storage_error(StageStorageError("stage trial: no room", fix="Make room."))
    assert found is not None
    assert (found.detail, found.fix, found.status) == ("stage trial: no room", "Make room.", 503)


def test_a_database_that_another_holds_locked(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("CREATE TABLE jobs (id)")
    holder.execute("BEGIN EXCLUSIVE")
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.0})
    translate_database_errors(engine)
    with pytest.raises(DatabaseBusyError, match="locked"), engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO jobs VALUES (1)"))
    holder.close()
    engine.dispose()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"no database at all" * 100)
    engine = sa.create_engine(f"sqlite:///{path}")
    translate_database_errors(engine)
    with pytest.raises(DamagedDatabaseError, match="damaged") as caught, engine.begin() as connection:
        connection.execute(sa.text("SELECT * FROM jobs"))
    assert "--rebuild" in caught.value.fix
    engine.dispose()


def test_a_database_without_room(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    translate_database_errors(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE jobs (id)"))
    with engine.connect() as connection:
        connection.execute(sa.text("PRAGMA max_page_count=3"))
        with pytest.raises(InsufficientStorageError):
            connection.execute(sa.text("INSERT INTO jobs VALUES (randomblob(100000))"))
    engine.dispose()


def test_a_statement_that_is_wrong_stays_what_it_is() -> None:
    engine = sa.create_engine("sqlite://")
    translate_database_errors(engine)
    with pytest.raises(sa.exc.OperationalError), engine.begin() as connection:
        connection.execute(sa.text("SELECT * FROM nothing"))
    engine.dispose()
