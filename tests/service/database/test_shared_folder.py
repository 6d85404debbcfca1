"""The folder that all processes of a database see is told from any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from calibration.errors import InvalidConfigError
from service.database.engine import open_engine
from service.database.shared_folder import ID_NAME, SharedFolder
from service.errors import StorageError


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'db.sqlite'}")
    yield engine
    engine.dispose()


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_first_folder_is_the_databases_and_another_is_refused(engine: sa.Engine, tmp_path: Path) -> None:
    shared = folder(tmp_path / "shared")
    SharedFolder(engine, shared)
    SharedFolder(engine, shared).check()
    other = folder(tmp_path / "other")
    with pytest.raises(InvalidConfigError, match="not the one that the other processes"):
        SharedFolder(engine, other)
    assert not list(other.iterdir())


def test_a_copy_of_the_folder_is_taken_by_this_database_and_by_a_new_one(engine: sa.Engine, tmp_path: Path) -> None:
    shared, copy = folder(tmp_path / "shared"), folder(tmp_path / "copy")
    SharedFolder(engine, shared)
    (copy / ID_NAME).write_text((shared / ID_NAME).read_text() + "\n")
    SharedFolder(engine, copy).check()
    other = open_engine(f"sqlite:///{tmp_path / 'other.sqlite'}")
    SharedFolder(other, shared)
    other.dispose()
    SharedFolder(engine, shared).check()


def test_a_folder_that_goes_is_missed(engine: sa.Engine, tmp_path: Path) -> None:
    shared = folder(tmp_path / "shared")
    found = SharedFolder(engine, shared)
    (shared / ID_NAME).rename(tmp_path / "away")
    with pytest.raises(StorageError, match="it is not there now"):
        found.check()
    (tmp_path / "away").rename(shared / ID_NAME)
    found.check()
