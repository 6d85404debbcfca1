"""Where uploads and results are kept: content-addressed, written atomically, never changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from engine_builder.workspace.tree_removal import remove_tree
from service.errors import NotFoundError
from service.jobs.records import StoredFile


class StoreWriter(Protocol):
    """One file on its way into the store.

    Used with ``with``: whatever was not committed by then leaves nothing behind.
    """

    def write(self, data: bytes) -> None:
        """Append bytes."""

    def commit(self) -> StoredFile:
        """Put the file into the store, all at once, and say what it became."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class ArtifactStore(Protocol):
    """Files by the digest of their bytes.

    The same bytes are one file, whoever stores them. A file that is there is whole. Safe to share between threads.
    """

    def writer(self) -> StoreWriter:
        """Begin a new file."""

    def put(self, path: Path) -> StoredFile:
        """Store a copy of a local file."""

    def find(self, sha256: str) -> StoredFile | None:
        """Return the stored file with this digest, if there is one."""

    def open(self, sha256: str) -> AbstractContextManager[BinaryIO]:
        """Open a stored file for reading.

        Raises:
            NotFoundError: There is no such file.
        """

    def fetch(self, sha256: str, target: Path) -> None:
        """Make a stored file readable at ``target``, which must not exist; nobody may write to it there.

        Raises:
            NotFoundError: There is no such file.
        """


class LocalArtifactStore:
    """An ``ArtifactStore`` in a local folder: ``<root>/<two digits>/<sha256>``, with unfinished files in ``<root>/unfinished``."""

    def __init__(self, root: Path) -> None:
        """Open the folder, which only one process may use; unfinished files of an earlier one are removed."""
        self._root = root
        self._unfinished = root / "unfinished"
        remove_tree(self._unfinished)
        self._unfinished.mkdir(parents=True)

    def writer(self) -> _LocalWriter:
        """Begin a new file."""
        return _LocalWriter(self._unfinished / secrets.token_hex(16), self._root)

    def put(self, path: Path) -> StoredFile:
        """Store a copy of a local file."""
        with path.open("rb") as source, self.writer() as writer:
            while data := source.read(_CHUNK_BYTES):
                writer.write(data)
            return writer.commit()

    def find(self, sha256: str) -> StoredFile | None:
        """Return the stored file with this digest, if there is one."""
        if not _is_digest(sha256):
            return None
        path = _path_of(self._root, sha256)
        return StoredFile(sha256, path.stat().st_size) if path.is_file() else None

    @contextlib.contextmanager
    def open(self, sha256: str) -> Iterator[BinaryIO]:
        """Open a stored file for reading."""
        with self._existing(sha256).open("rb") as file:
            yield file

    def fetch(self, sha256: str, target: Path) -> None:
        """Link the stored file to ``target``, or copy it where the two lie on different file systems."""
        source = self._existing(sha256)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    def _existing(self, sha256: str) -> Path:
        if self.find(sha256) is None:
            raise NotFoundError(f"file sha256:{sha256}: it is not in the store", fix="Upload it again.")
        return _path_of(self._root, sha256)


class _LocalWriter:
    """Writes beside the store and renames into it."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._root = root
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size_bytes += len(data)

    def commit(self) -> StoredFile:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        stored = StoredFile(self._digest.hexdigest(), self._size_bytes)
        target = _path_of(self._root, stored.sha256)
        target.parent.mkdir(exist_ok=True)
        if not target.exists():  # else __exit__ removes this second copy
            self._path.chmod(0o444)
            self._path.replace(target)
        return stored

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _path_of(root: Path, sha256: str) -> Path:
    return root / sha256[:2] / sha256


def _is_digest(text: str) -> bool:
    return len(text) == hashlib.sha256().digest_size * 2 and set(text) <= set("0123456789abcdef")


_CHUNK_BYTES = 2**20
