"""A folder goes whatever is in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine_builder.workspace.tree_removal import remove_tree


def nest(top: Path, name: str, depth: int) -> None:
    """Make folders in folders, with a file in each, although their path is longer than a path may be."""
    top.mkdir()
    handle = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=handle)
        inner = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)


def test_folders_deeper_than_the_stack_and_longer_than_a_path_are_removed(tmp_path: Path) -> None:
    nest(tmp_path / "top", "d" * 200, sys.getrecursionlimit() + 100)
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "folder").symlink_to(tmp_path / "kept")
    (tmp_path / "top" / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "alias").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "top")
    remove_tree(tmp_path / "alias")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]


def test_folders_without_permissions_and_with_our_own_names_are_removed(tmp_path: Path) -> None:
    inner = tmp_path / "top" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    for index in range(3):
        (tmp_path / "top" / f"removed-{index}" / "removed-0" / "c").mkdir(parents=True)
    inner.chmod(0)
    inner.parent.chmod(0)
    remove_tree(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_a_file_or_nothing_is_fine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    remove_tree(tmp_path / "file")
    remove_tree(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
