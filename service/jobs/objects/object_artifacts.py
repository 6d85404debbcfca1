"""An ``ArtifactStore`` in an object store: files by the digest of their bytes, verified before anybody reads one."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from engine_builder.workspace.workspace import file_sha256
from service.errors import DamagedArtifactError, NotFoundError
from service.jobs.artifacts import KeptFile, StoreWriter, is_digest, link_or_copy
from service.jobs.objects.catalogue import CLAIM_SECONDS, DAMAGED, Catalogue
from service.jobs.objects.node_cache import NodeCache
from service.jobs.records import StoredFile
from service.object_store.objects import Objects

logger = logging.getLogger(__name__)


class ObjectArtifactStore:
    """Objects ``store/<two digits>/<sha256>``, what the catalogue says of them, and those that this process has on its disk."""

    def __init__(self, objects: Objects, catalogue: Catalogue, cache: NodeCache) -> None:
        """Use a part of a bucket."""
        self._objects = objects
        self._catalogue = catalogue
        self._cache = cache
        self._turns = [threading.Lock() for _ in range(16)]  # of threads that want the same object, by its first digit

    def writer(self, expected_bytes: int | None = None) -> StoreWriter:
        """Begin a new file: on this process's disk, from which it is uploaded when it is whole."""
        return _ObjectWriter(self._cache.writer(expected_bytes), self._committed, is_upload=expected_bytes is not None)

    def put(self, path: Path) -> StoredFile:
        """Store a copy of a local file."""
        file = StoredFile(file_sha256(path), path.stat().st_size)
        self._store(file, path)
        return file

    def find(self, sha256: str) -> StoredFile | None:
        """Return the stored file with this digest, if there is one."""
        return self._catalogue.find(sha256) if is_digest(sha256) else None

    def mark_upload(self, sha256: str) -> None:
        """Note that somebody uploaded the file, or named it, just now."""
        self._catalogue.mark_upload(sha256)

    def is_upload(self, sha256: str) -> bool:
        """Whether somebody uploaded the file."""
        return self._catalogue.is_upload(sha256)

    def files(self) -> Iterator[KeptFile]:
        """Give every stored file."""
        return self._catalogue.files()

    def remove(self, sha256: str) -> None:
        """Remove a file to which nothing refers; ``collect`` does so in the store."""
        self._catalogue.remove(sha256)

    def require(self, sha256: str) -> None:
        """Bring a file to this process's disk."""
        self._path(sha256)

    @contextlib.contextmanager
    def open(self, sha256: str) -> Iterator[BinaryIO]:
        """Open a stored file for reading."""
        with self._opened(sha256) as file:
            yield file

    def fetch(self, sha256: str, target: Path) -> None:
        """Link the file on this process's disk to ``target``, or copy it."""
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                return link_or_copy(self._path(sha256), target)
        raise FileNotFoundError(sha256)

    def copy(self, sha256: str, target: Path) -> None:
        """Write the file to ``target``, which is nobody else's."""
        with self.open(sha256) as source, target.open("xb") as copied:
            shutil.copyfileobj(source, copied, _CHUNK_BYTES)

    def link(self, sha256: str, **headers: str) -> str:
        """Return an address in the object store from which whoever has it may download the file; for headers see ``Objects.link``.

        Raises:
            NotFoundError: There is no such file.
        """
        if not is_digest(sha256) or self._catalogue.state(sha256) is None:
            raise _not_here(sha256)
        return self._objects.link(_key(sha256), LINK_SECONDS, **headers)

    def collect(self, seconds: float = CLAIM_SECONDS) -> None:
        """Remove the objects that nobody needs; see ``Catalogue.collect``."""
        gone = self._catalogue.collect(lambda sha256: self._objects.remove(_key(sha256)), seconds)
        for sha256 in gone:
            self._cache.drop(sha256)
        if gone:
            logger.info("object store: removed %d objects that nobody needs", len(gone))

    def _committed(self, writer: StoreWriter, *, is_upload: bool) -> StoredFile:
        file = writer.commit()
        path = self._cache.find(file.sha256)
        assert path is not None
        self._store(file, path)
        if is_upload:
            self._catalogue.mark_upload(file.sha256)
        self._cache.trim(keep=file.sha256)
        return file

    def _store(self, file: StoredFile, path: Path) -> None:
        if self._catalogue.claim(file):
            self._objects.put(path, _key(file.sha256))
            self._catalogue.note_stored(file.sha256)

    def _opened(self, sha256: str) -> BinaryIO:
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                return self._path(sha256).open("rb")
        raise FileNotFoundError(sha256)

    def _path(self, sha256: str) -> Path:
        """Return where the file lies on this process's disk, brought there and verified if it does not yet.

        Raises:
            NotFoundError: There is no such file.
            DamagedArtifactError: The store lost it, or has other bytes, at the second reading too.
        """
        state = self._catalogue.state(sha256) if is_digest(sha256) else None
        if state is None:
            raise _not_here(sha256)
        with self._turns[int(sha256[0], 16)]:
            path = self._cache.find(sha256)
            for _ in range(_READINGS if path is None else 0):
                if path is None:
                    path = self._brought(sha256)
                    if path is not None and state == DAMAGED:  # restored meanwhile
                        self._catalogue.note_stored(sha256)
        if path is None:
            self._catalogue.note_damaged(sha256)
            logger.error("object store: sha256:%s is lost or damaged", sha256)
            raise DamagedArtifactError(
                f"file sha256:{sha256}: the object store lost it, or has other bytes than were stored",
                fix="Ask the operator to restore the object; an upload is mended by sending the same file again.",
            )
        return path

    def _brought(self, sha256: str) -> Path | None:
        try:
            return self._cache.fill(sha256, lambda path: self._objects.get(_key(sha256), path))
        except NotFoundError:
            return None


class _ObjectWriter:
    """Writes to this process's disk; what is whole is uploaded."""

    def __init__(self, writer: StoreWriter, commit: Callable[..., StoredFile], *, is_upload: bool) -> None:
        self._writer = writer
        self._commit = commit
        self._is_upload = is_upload

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    @property
    def sha256(self) -> str:
        return self._writer.sha256

    def commit(self) -> StoredFile:
        return self._commit(self._writer, is_upload=self._is_upload)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, trace)


def _key(sha256: str) -> str:
    return f"store/{sha256[:2]}/{sha256}"


def _not_here(sha256: str) -> NotFoundError:
    return NotFoundError(f"file sha256:{sha256}: it is not in the store", fix="Upload it again.")


LINK_SECONDS = 900
_READINGS = 2
_TRIES = 3
_CHUNK_BYTES = 2**20
