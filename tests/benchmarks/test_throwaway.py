from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import throwaway
from benchmarks.throwaway import NotInstalledError, environment_with


def test_finished_environment_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "packages.txt").write_text("a==1\nb\nc", encoding="utf-8")
    assert environment_with(tmp_path, ("a==1", "b"), alone=("c",)) == tmp_path / "bin" / "python"


def test_package_that_cannot_be_had_is_named_with_what_pip_said(tmp_path: Path) -> None:
    with pytest.raises(NotInstalledError, match=r"could not install \./nowhere: ERROR"):
        throwaway._install(Path(sys.executable), ["./nowhere"])
