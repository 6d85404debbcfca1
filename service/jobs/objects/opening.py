"""Opens what holds the files of jobs, as the settings say: a folder, or an object store and a folder of this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from service.database.shared_folder import SharedFolder
from service.errors import NotFoundError, RemovedError
from service.jobs.artifacts import ArtifactStore, LocalArtifactStore
from service.jobs.live.file_uses import FILES
from service.jobs.objects.catalogue import CLAIM_SECONDS, Catalogue
from service.jobs.objects.deployment_store import DeploymentStore
from service.jobs.objects.job_folders import JobFolders, OwnJobFolders, SharedJobFolders
from service.jobs.objects.node_cache import NodeCache
from service.jobs.objects.object_artifacts import ObjectArtifactStore
from service.jobs.objects.work_files import WORK, WorkFiles
from service.jobs.quotas.file_owners import OWNERS
from service.jobs.store import JobStore
from service.object_store.filesystem import open_filesystem
from service.object_store.objects import Objects
from service.settings import Settings

SharedPlace = SharedFolder | DeploymentStore  # what processes of one database share besides it


@dataclass(frozen=True, slots=True)
class Files:
    """What holds the files of jobs."""

    artifacts: ArtifactStore
    folders: JobFolders
    collect: Callable[[], None] | None = None  # removes objects that nobody needs; one process at a time calls it
    sweep: Callable[[Callable[[str], bool]], None] | None = None  # removes folders here of jobs that ended; is told which run here


def open_objects(settings: Settings) -> Objects | None:
    """Return the objects of the settings; None where they name no object store.

    Raises:
        InvalidConfigError: The packages for it are not installed.
    """
    if settings.object_store is None:
        return None
    endpoint = settings.object_store_public_endpoint
    folder = settings.object_store.removeprefix("s3://").rstrip("/")
    return Objects(open_filesystem(), folder, public=None if endpoint is None else open_filesystem(endpoint))


def open_place(settings: Settings, store: JobStore, files_dir: Path, objects: Objects | None) -> SharedPlace:
    """Return what the processes share besides their database.

    Args:
        settings: The settings.
        store: The jobs.
        files_dir: The folder that they share, where they have no object store.
        objects: Those of the object store.

    Raises:
        InvalidConfigError: It is another one than the other processes have.
        StorageError: It cannot be used now.
        OSError: The folder cannot be read or written.
    """
    if objects is None or settings.object_store is None:
        return SharedFolder(store.engine, files_dir)
    return DeploymentStore(store.engine, objects, settings.object_store)


def open_files(
    settings: Settings, store: JobStore, files_dir: Path, objects: Objects | None, clock: Callable[[], datetime], process: str
) -> Files:
    """Return what holds the files.

    Args:
        settings: The settings.
        store: The jobs.
        files_dir: Holds ``jobs/`` and ``store/``.
        objects: Where files go; None: there.
        clock: The present, in UTC.
        process: The name of this one, where several use the folder.
    """
    if objects is None:
        local = LocalArtifactStore(files_dir / "store", reserve_bytes=settings.min_free_bytes, process=process)
        return Files(local, SharedJobFolders(files_dir / "jobs"))
    catalogue = Catalogue(store.engine, (OWNERS.c.sha256, FILES.c.sha256, WORK.c.sha256), clock)
    cache = NodeCache(files_dir / "store", max_bytes=settings.object_cache_bytes, reserve_bytes=settings.min_free_bytes)
    artifacts = ObjectArtifactStore(objects, catalogue, cache)
    work = WorkFiles(store.engine, catalogue.check_there, clock)
    store.file_uses.check_there = catalogue.check_there
    folders = OwnJobFolders(files_dir / "jobs", artifacts, work, lambda job_id: _has_ended(store, job_id))

    def collect() -> None:
        work.forget_ended(CLAIM_SECONDS)
        artifacts.collect()

    return Files(artifacts, folders, collect, folders.sweep)


def _has_ended(store: JobStore, job_id: str) -> bool:
    try:
        return store.state(job_id).is_finished
    except RemovedError:
        return True
    except NotFoundError:  # about to be submitted, or no job
        return False
