"""Objects that a process has on its own disk: read there, and dropped when others need the room."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from engine_builder.workspace.workspace import file_sha256
from service.jobs.artifacts import LocalArtifactStore, StoreWriter, path_in_store


class NodeCache:
    """Whole objects in a folder of this process alone, by their digest. Safe to share between threads.

    What an earlier process left is read once before it is used: a damaged file counts as missing.
    """

    def __init__(self, root: Path, *, max_bytes: int, reserve_bytes: int) -> None:
        """Open the folder, which is created where it is missing.

        Args:
            root: The folder.
            max_bytes: Past it the files that were not used for the longest time are dropped.
            reserve_bytes: What uploads leave free on its disk.
        """
        self._root = root
        self._files = LocalArtifactStore(root, reserve_bytes=reserve_bytes)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._verified: dict[str, tuple[int, int]] = {}  # inode and size of files that were read, by digest

    def writer(self, expected_bytes: int | None = None) -> StoreWriter:
        """Begin a file; see ``ArtifactStore.writer``."""
        return self._files.writer(expected_bytes)

    def find(self, sha256: str) -> Path | None:
        """Return where an object lies; None where it is not here. It may be dropped at any time: open or link it at once."""
        path = path_in_store(self._root, sha256)
        try:
            found = path.stat()
            if self._verified.get(sha256) != (found.st_ino, found.st_size):
                if file_sha256(path) != sha256:
                    self.drop(sha256)
                    return None
                self._verified[sha256] = (found.st_ino, found.st_size)
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def fill(self, sha256: str, write: Callable[[Path], None]) -> Path | None:
        """Take an object in, and return where it lies; None where it is not what its digest says.

        Args:
            sha256: The digest.
            write: Writes it to a file.
        """
        with self._files.incoming() as unfinished:
            write(unfinished)
            if file_sha256(unfinished) != sha256:
                return None
            path = self._files.adopt(unfinished, sha256)
        found = path.stat()
        self._verified[sha256] = (found.st_ino, found.st_size)
        self.trim(keep=sha256)
        return path

    def drop(self, sha256: str) -> None:
        """Drop an object, if it is here; who reads it now reads it to its end."""
        self._verified.pop(sha256, None)
        self._files.remove(sha256)

    def trim(self, keep: str) -> None:
        """Drop what was not used for the longest time, until the rest has room; ``keep`` stays."""
        with self._lock:
            files = sorted(self._used())
            total = sum(size for _, size, _ in files)
            for _, size, sha256 in files:
                if total <= self._max_bytes:
                    return
                if sha256 != keep:
                    self.drop(sha256)
                    total -= size

    def _used(self) -> Iterator[tuple[float, int, str]]:
        for path in self._root.glob("[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path.name
