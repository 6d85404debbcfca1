from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import DataFolderInUseError
from service.jobs.resources import open_deps
from service.settings import Settings


def test_second_server_in_the_same_data_folder_is_refused(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    first = open_deps(settings)
    with pytest.raises(DataFolderInUseError, match="another server works in it"):
        open_deps(settings)
    first.close()
    open_deps(settings).close()


def test_data_folder_is_made_for_its_user_alone_and_one_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    open_deps(Settings(data_dir=tmp_path / "data")).close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    (tmp_path / "data").chmod(0o750)
    open_deps(Settings(data_dir=tmp_path / "data")).close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o750
