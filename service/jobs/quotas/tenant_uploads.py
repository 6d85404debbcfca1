"""Takes the uploads of one tenant into the store: within its limit, and noted as its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from service.jobs.artifacts import ArtifactStore, StoreWriter
from service.jobs.live.file_uses import FileUses
from service.jobs.quotas.file_owners import FileOwners, Room
from service.jobs.quotas.uploads_in_use import UploadsInUse
from service.jobs.records import StoredFile


class TenantUploads:
    """The uploads of one request; used with ``with``, by one thread at a time."""

    def __init__(self, tenant: str, artifacts: ArtifactStore, owners: FileOwners, uses: FileUses, in_use: UploadsInUse) -> None:
        """Take uploads of a tenant.

        Args:
            tenant: Its name.
            artifacts: Where files go.
            owners: Whose they are, and what the tenant may store.
            uses: The files that jobs left.
            in_use: The files that requests are using.
        """
        self.tenant = tenant
        self._artifacts = artifacts
        self._owners = owners
        self._uses = uses
        self._in_use = in_use
        self._own_uses: Counter[str] = Counter()
        self._added: list[str] = []

    def find(self, sha256: str) -> StoredFile | None:
        """Return a stored file, if the tenant has it; one that only others have is as one that is not there."""
        self._use(sha256)
        if not self._owners.has(self.tenant, sha256):
            return None
        return self._artifacts.find(sha256)

    def writer(self, expected_bytes: int | None = None) -> StoreWriter:
        """Begin a new file; see ``ArtifactStore.writer``.

        Raises:
            QuotaExceededError: The tenant may not store so much.
        """
        room = self._owners.room(self.tenant)
        room.check(expected_bytes or 0)
        return _OwnedWriter(self._artifacts.writer(expected_bytes or 0), room, self)

    def take_back(self, filing: AbstractContextManager[object]) -> None:
        """Remove what this request added: it is refused as a whole.

        Args:
            filing: Held while files of jobs are stored or removed.
        """
        self.remove(self._added, filing)
        self._added.clear()

    def remove(self, sha256s: Collection[str], filing: AbstractContextManager[object]) -> None:
        """Let the tenant have uploaded files no longer; what another request is using stays.

        What another tenant or a finished job has too stays stored.

        Args:
            sha256s: Of the files.
            filing: As for ``take_back``.
        """
        with filing, self._in_use.lock:
            gone = [sha256 for sha256 in sha256s if self._in_use.by_tenant(self.tenant, sha256) == self._own_uses[sha256]]
            self._owners.forget(gone, self.tenant)
            needed = self._uses.all() if gone else frozenset()
            for sha256 in gone:
                is_used = sha256 in needed or self._in_use.by_anyone(sha256) > self._own_uses[sha256]
                if not is_used and not self._owners.is_anyones(sha256):
                    self._artifacts.remove(sha256)

    def committed(self, writer: StoreWriter, file: StoredFile) -> StoredFile:
        """Note a whole file, then store it."""
        self._use(file.sha256)
        is_new = self._owners.add(self.tenant, file)
        try:
            stored = writer.commit()
        except BaseException:
            if is_new:
                self._owners.forget([file.sha256], self.tenant)
            raise
        if is_new:
            self._added.append(file.sha256)
        return stored

    def _use(self, sha256: str) -> None:
        self._in_use.begin(self.tenant, sha256)
        self._own_uses[sha256] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._in_use.end(self.tenant, self._own_uses)
        self._own_uses.clear()


class _OwnedWriter:
    def __init__(self, writer: StoreWriter, room: Room, uploads: TenantUploads) -> None:
        self._writer = writer
        self._room = room
        self._uploads = uploads
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        self._size_bytes += len(data)
        self._room.check(self._size_bytes)
        self._writer.write(data)

    @property
    def sha256(self) -> str:
        return self._writer.sha256

    def commit(self) -> StoredFile:
        return self._uploads.committed(self._writer, StoredFile(self.sha256, self._size_bytes))

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, trace)
