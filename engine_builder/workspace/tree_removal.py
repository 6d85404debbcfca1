"""Removes a folder whatever is in it: as deep as a disk can hold, with names longer together than a path may be.

What a folder below holds is moved up beside it, again and again, so that nothing is ever looked at more than two folders deep: neither the
stack nor the length of a path depends on the depth.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a file or a folder and all it holds; links are not followed, a missing one is fine. What cannot be removed stays."""
    with contextlib.suppress(OSError):  # a missing one, or one that belongs to somebody else
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        _empty(path)
        path.rmdir()


def _empty(top: Path) -> None:
    """Remove what a folder holds."""
    moved = 0
    waiting = list(_emptied_of_files(top))
    while waiting:
        folder = waiting.pop()
        for inner in _emptied_of_files(folder):
            target = top / f"{_PREFIX}{moved}"
            while target.exists():  # a name of the folder's own
                moved += 1
                target = top / f"{_PREFIX}{moved}"
            moved += 1
            try:
                inner.chmod(_OWNER_ALL)  # its entry ".." changes
                inner.rename(target)
            except OSError:  # it stays, and with it those around it
                continue
            waiting.append(target)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _emptied_of_files(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder once all else in it is removed."""
    with contextlib.suppress(OSError):
        folder.chmod(_OWNER_ALL)  # or what is in it could not be removed
    found: list[Path] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found.append(Path(entry.path))
                continue
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
    yield from found


_PREFIX = "removed-"
_OWNER_ALL = 0o700
