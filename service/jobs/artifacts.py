"""Where uploads and results are kept: content-addressed, written atomically, never changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self
from urllib.parse import quote

from engine_builder.workspace.tree_removal import remove_tree
from service.disk_room import check_room, is_full, no_room
from service.errors import NotFoundError
from service.jobs.records import StoredFile


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A stored file as whoever makes room sees it."""

    sha256: str
    size_bytes: int
    used_at: float  # when it was stored, or last uploaded or named by a caller; seconds since 1970


class StoreWriter(Protocol):
    """One file on its way into the store.

    Used with ``with``: whatever was not committed by then leaves nothing behind.
    """

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            InsufficientStorageError: The disk has no room for them.
        """

    @property
    def sha256(self) -> str:
        """The digest of what was written so far."""

    def commit(self) -> StoredFile:
        """Put the file into the store, all at once, and say what it became."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class ArtifactStore(Protocol):
    """Files by the digest of their bytes.

    The same bytes are one file, whoever stores them. A file that is there is whole. Safe to share between threads.
    """

    def writer(self, expected_bytes: int | None = None) -> StoreWriter:
        """Begin a new file.

        Args:
            expected_bytes: For an upload, what it will take as far as is known: a part of the disk has to stay free beside it. None for
                files of our own.

        Raises:
            InsufficientStorageError: The disk has no room for it.
        """

    def put(self, path: Path) -> StoredFile:
        """Store a copy of a local file."""

    def find(self, sha256: str) -> StoredFile | None:
        """Return the stored file with this digest, if there is one."""

    def mark_upload(self, sha256: str) -> None:
        """Note that somebody uploaded the file, or named it, just now; one that is not there stays so."""

    def is_upload(self, sha256: str) -> bool:
        """Whether somebody uploaded the file."""

    def files(self) -> Iterator[KeptFile]:
        """Give every stored file, in no order."""

    def remove(self, sha256: str) -> None:
        """Remove a file; who reads it now reads it to its end."""

    def require(self, sha256: str) -> None:
        """Make sure that a stored file can be opened at once.

        Raises:
            NotFoundError: There is no such file.
            DamagedArtifactError: It is not what was stored.
        """

    def open(self, sha256: str) -> AbstractContextManager[BinaryIO]:
        """Open a stored file for reading.

        Raises:
            NotFoundError: There is no such file.
            DamagedArtifactError: It is not what was stored.
        """

    def fetch(self, sha256: str, target: Path) -> None:
        """Make a stored file readable at ``target``, which must not exist; nobody may write to it there.

        Raises:
            NotFoundError: There is no such file.
            DamagedArtifactError: It is not what was stored.
        """

    def link(self, sha256: str, **headers: str) -> str | None:
        """Return an address under which whoever has it may download a file for a while; None where there is none.

        Args:
            sha256: Of the file.
            headers: Of the answer there, as parameters of S3's GetObject: ``ResponseContentType``, ``ResponseContentDisposition``.

        Raises:
            NotFoundError: There is no such file.
        """


class LocalArtifactStore:
    """An ``ArtifactStore`` in a local folder: ``<root>/<two digits>/<sha256>``, with unfinished files in ``<root>/unfinished``."""

    def __init__(self, root: Path, *, reserve_bytes: int = 0, process: str = "") -> None:
        """Open the folder; unfinished files that an earlier process of this name left are removed.

        Args:
            root: The folder.
            reserve_bytes: What uploads leave free on its disk.
            process: The name of this one, where several use the folder.
        """
        self._root = root
        self._reserve_bytes = reserve_bytes
        self._unfinished = root / "unfinished" / quote(process, safe="") if process else root / "unfinished"
        remove_tree(self._unfinished)
        self._unfinished.mkdir(parents=True)
        self._uploads = root / "uploads"  # an empty file for each upload, whose time is that of its last use
        self._uploads.mkdir(exist_ok=True)

    def writer(self, expected_bytes: int | None = None) -> _LocalWriter:
        """Begin a new file."""
        reserve_bytes = 0 if expected_bytes is None else self._reserve_bytes
        check_room(self._unfinished, expected_bytes or 0, reserve_bytes)
        committed = None if expected_bytes is None else self.mark_upload
        return _LocalWriter(self._unfinished / secrets.token_hex(16), self._root, expected_bytes or 0, reserve_bytes, committed)

    def put(self, path: Path) -> StoredFile:
        """Store a copy of a local file."""
        with path.open("rb") as source, self.writer() as writer:
            while data := source.read(_CHUNK_BYTES):
                writer.write(data)
            return writer.commit()

    def find(self, sha256: str) -> StoredFile | None:
        """Return the stored file with this digest, if there is one."""
        if not is_digest(sha256):
            return None
        path = path_in_store(self._root, sha256)
        return StoredFile(sha256, path.stat().st_size) if path.is_file() else None

    def mark_upload(self, sha256: str) -> None:
        """Note that somebody uploaded the file, or named it, just now."""
        if self.find(sha256) is not None:
            (self._uploads / sha256).touch()

    def is_upload(self, sha256: str) -> bool:
        """Whether somebody uploaded the file."""
        return is_digest(sha256) and (self._uploads / sha256).exists()

    def files(self) -> Iterator[KeptFile]:
        """Give every stored file."""
        for path in self._root.glob("[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found, mark = path.stat(), self._uploads / path.name
                used_at = mark.stat().st_mtime if mark.exists() else found.st_mtime
                yield KeptFile(path.name, found.st_size, used_at)

    def remove(self, sha256: str) -> None:
        """Remove a file."""
        if is_digest(sha256):
            (self._uploads / sha256).unlink(missing_ok=True)
            path_in_store(self._root, sha256).unlink(missing_ok=True)

    def require(self, sha256: str) -> None:
        """Make sure that a stored file can be opened."""
        self._existing(sha256)

    @contextlib.contextmanager
    def open(self, sha256: str) -> Iterator[BinaryIO]:
        """Open a stored file for reading."""
        with self._existing(sha256).open("rb") as file:
            yield file

    def fetch(self, sha256: str, target: Path) -> None:
        """Link the stored file to ``target``, or copy it where the two lie on different file systems."""
        link_or_copy(self._existing(sha256), target)

    def link(self, sha256: str, **_headers: str) -> None:
        """Say that there is no address but the server's own."""
        self._existing(sha256)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Path]:
        """Give the name of a file that is to be written, and adopted; whatever is left of it then is removed."""
        path = self._unfinished / secrets.token_hex(16)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def adopt(self, path: Path, sha256: str) -> Path:
        """Take an incoming file of this digest into the store, all at once, and return where it lies."""
        target = path_in_store(self._root, sha256)
        target.parent.mkdir(exist_ok=True)
        path.chmod(0o444)
        path.replace(target)
        return target

    def _existing(self, sha256: str) -> Path:
        if self.find(sha256) is None:
            raise NotFoundError(f"file sha256:{sha256}: it is not in the store", fix="Upload it again.")
        return path_in_store(self._root, sha256)


class _LocalWriter:
    """Writes beside the store and renames into it."""

    def __init__(
        self, path: Path, root: Path, expected_bytes: int, reserve_bytes: int, committed: Callable[[str], None] | None = None
    ) -> None:
        self._committed = committed
        self._path = path
        self._root = root
        self._expected_bytes = expected_bytes
        self._reserve_bytes = reserve_bytes
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._on_its_way_bytes = 0  # the size up to which the system was asked to write it to the disk
        self._checked_bytes = 0  # the size at which the disk was looked at last

    def write(self, data: bytes) -> None:
        if self._size_bytes + len(data) - self._checked_bytes >= _CHECK_BYTES:
            self._check_room(max(len(data), self._expected_bytes - self._size_bytes))
        try:
            self._file.write(data)
        except OSError as exc:
            if not is_full(exc):
                raise
            raise self._no_room(len(data)) from exc
        self._digest.update(data)
        self._size_bytes += len(data)
        if self._size_bytes - self._on_its_way_bytes >= _WRITE_OUT_BYTES:
            _write_out(self._file.fileno(), self._on_its_way_bytes, self._size_bytes)
            self._on_its_way_bytes = self._size_bytes

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def commit(self) -> StoredFile:
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as exc:
            if not is_full(exc):
                raise
            raise self._no_room(0) from exc
        self._file.close()
        stored = StoredFile(self.sha256, self._size_bytes)
        target = path_in_store(self._root, stored.sha256)
        target.parent.mkdir(exist_ok=True)
        if not target.exists():  # else __exit__ removes this second copy
            self._path.chmod(0o444)
            self._path.replace(target)
        if self._committed is not None:
            self._committed(stored.sha256)
        return stored

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # what is still buffered has no room, and nobody wants it
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _check_room(self, needed_bytes: int) -> None:
        self._checked_bytes = self._size_bytes
        check_room(self._path.parent, needed_bytes, self._reserve_bytes)

    def _no_room(self, needed_bytes: int) -> Exception:
        return no_room(self._path.parent, max(needed_bytes, self._expected_bytes - self._size_bytes), self._reserve_bytes)


def _write_out(descriptor: int, start: int, end: int) -> None:
    """Have the system begin to write a part of a file to the disk, without a wait: else all of it waits for the last fsync.

    Linux does so when it is told that the part is not needed in memory; what is not on the disk yet stays there.
    """
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_DONTNEED)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it where the two lie on different file systems."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def path_in_store(root: Path, sha256: str) -> Path:
    """Return where the file of a digest lies."""
    return root / sha256[:2] / sha256


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 in lower-case hex digits."""
    return len(text) == hashlib.sha256().digest_size * 2 and set(text) <= set("0123456789abcdef")


_CHUNK_BYTES = 2**20
_WRITE_OUT_BYTES = 32 * 2**20
_CHECK_BYTES = 32 * 2**20  # between two looks at the disk
