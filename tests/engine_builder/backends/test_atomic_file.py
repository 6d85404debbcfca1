"""Files that are there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_builder.backends.atomic_file import write_atomically


def test_the_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        write_atomically(tmp_path / "file", data)
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", data)]


def test_a_write_that_fails_leaves_no_file_beside_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_content_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", "not bytes")  # type: ignore[arg-type]  # the point of the test
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]
