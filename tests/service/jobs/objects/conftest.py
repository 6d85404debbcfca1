"""A part of a bucket of a real object store for each test, and the tables of jobs beside it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.jobs.live.file_uses import FILES
from service.jobs.objects.catalogue import Catalogue
from service.jobs.objects.node_cache import NodeCache
from service.jobs.objects.object_artifacts import ObjectArtifactStore
from service.jobs.objects.work_files import WORK, WorkFiles
from service.jobs.quotas.file_owners import OWNERS
from service.jobs.store import JobStore
from service.object_store.filesystem import FileSystem, open_filesystem
from service.object_store.objects import Objects
from tests.fakes import FakeClock
from tests.object_store_server import BUCKET, ObjectStoreServer
from tests.postgres_server import PostgresServer


class Bench:
    """One deployment: its database, its part of the bucket, and as many processes as a test makes."""

    def __init__(self, store: JobStore, filesystem: FileSystem, folder: str, clock: FakeClock, root: Path) -> None:
        self.store, self.filesystem, self.folder, self.clock, self.root = store, filesystem, folder, clock, root
        self.catalogue = Catalogue(store.engine, (OWNERS.c.sha256, FILES.c.sha256, WORK.c.sha256), clock)
        store.file_uses.check_there = self.catalogue.check_there
        self.work = WorkFiles(store.engine, self.catalogue.check_there, clock)
        self.objects = Objects(filesystem, folder, sleep=lambda _: None)

    def process(self, name: str = "one", max_bytes: int = 2**30) -> ObjectArtifactStore:
        """Return the files as a process of this name sees them, with a cache of its own."""
        return ObjectArtifactStore(self.objects, self.catalogue, NodeCache(self.root / name, max_bytes=max_bytes, reserve_bytes=0))

    def path(self, sha256: str) -> str:
        """Return the path of an object in the store."""
        return f"{self.folder}/store/{sha256[:2]}/{sha256}"

    def has_object(self, sha256: str) -> bool:
        """Whether the store has an object, whatever the catalogue says."""
        try:
            self.filesystem.cat_file(self.path(sha256))
        except FileNotFoundError:
            return False
        return True


@pytest.fixture
def bench(postgres: PostgresServer, object_store: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    clock = FakeClock()
    store = JobStore(postgres.create_database(), clock)
    yield Bench(store, open_filesystem(), f"{BUCKET}/{secrets.token_hex(8)}", clock, tmp_path)
    store.close()
