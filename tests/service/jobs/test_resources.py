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
