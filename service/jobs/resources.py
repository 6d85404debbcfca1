"""What the parts of the service are given: the data folder, the stores, the pipeline and the way to run a stage."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from calibration.errors import InvalidConfigError
from engine_builder.pipeline import optimize as real
from engine_builder.pipeline.ahead.preparing import PREPARATIONS, Preparation
from engine_builder.pipeline.observer import Observer
from engine_builder.pipeline.optimize import JobRequest
from engine_builder.pipeline.parts import SPLITS, Split
from engine_builder.pipeline.stage import RunStage
from engine_builder.pipeline.stage_table import ENGINE_STAGES, KEPT_STAGES
from engine_builder.stage_io.outcome import JobOutcome
from service.access.audit import FOLDER as AUDIT
from service.access.audit import AuditLog
from service.access.caller import DEFAULT_TENANT
from service.access.encryption import Encryption
from service.access.key_places import key_place
from service.database.advisory_locks import SharedLock
from service.database.membership import Membership, join
from service.database.role import Role
from service.errors import DataFolderInUseError
from service.intake.in_child import Intake
from service.jobs.artifacts import ArtifactStore
from service.jobs.objects.job_folders import JobFolders
from service.jobs.objects.opening import Files, SharedPlace, open_files, open_objects, open_place
from service.jobs.quotas.measurement_cache import MeasurementCache
from service.jobs.quotas.metering import MeteredChild
from service.jobs.quotas.tenant_uploads import TenantUploads
from service.jobs.quotas.uploads_in_use import UploadsInUse
from service.jobs.records import StoredFile
from service.jobs.storage.database_check import Row, check_database, set_aside
from service.jobs.store import JobStore
from service.settings import PREFIX, Settings
from service.worker.child_process import STAGE_TABLE, StageLimits, run_in_child
from service.worker.kernel_times import FOLDER as KERNEL_TIMES
from service.worker.result_identity import result_identity
from service.worker.stage_cache import StageCache
from service.worker.warm_parent import WarmParent

logger = logging.getLogger(__name__)
DATABASE_NAME = "service.sqlite"
_FOLDER_SETTINGS = {"data folder": f"--data-dir, or {PREFIX}DATA_DIR", "shared folder": f"{PREFIX}SHARED_DIR"}
ALONE = "embedded"  # name of the only process


class RunChild(Protocol):
    """Runs one stage in a child process; see ``service.worker.child_process.run_in_child``."""

    def __call__(
        self,
        stage: str,
        request: Mapping[str, object],
        workspace: Path,
        *,
        limits: StageLimits,
        on_progress: Callable[[float, str], None],
        should_cancel: Callable[[], bool],
    ) -> dict[str, object]:
        """Return the stage's result."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The whole job, and the version of its sequence of stages: a job begun under another version starts anew."""

    version: str
    optimize: Callable[[JobRequest, RunStage, Observer], JobOutcome]
    kept_stages: frozenset[str] = frozenset()  # names of those whose results may serve other jobs
    gpu_stages: frozenset[str] = frozenset()  # names of those that open the GPU of a job that is for one
    splits: Mapping[str, Split] = field(default_factory=dict)  # by the name of those that several workers can measure together
    preparations: Mapping[str, Preparation] = field(default_factory=dict)  # by the name of those of which a part can be done before


@dataclass(frozen=True, slots=True)
class Deps:
    """One server's belongings. Made by ``open_deps``, which also says who closes them."""

    settings: Settings
    store: JobStore
    files: Files
    pipeline: Pipeline
    warm_parent: WarmParent  # from which stages are forked
    run_child: RunChild
    intake: Intake  # reads uploads
    cache: MeasurementCache | None  # of results that may serve other jobs
    clock: Callable[[], datetime]
    audit: AuditLog  # who did what
    lock: BinaryIO  # held open: the kernel frees the data folder when the process ends, however it ends
    stopping: threading.Event  # set once, when the server is to stop
    filing: SharedLock  # held while files of a job are stored or removed
    membership: Membership | None  # what ties this process to others on the same database; None: it is the only one
    shared_place: SharedPlace | None = None  # where files lie, if other processes work there too
    uploads_in_use: UploadsInUse = field(default_factory=UploadsInUse)

    @property
    def name(self) -> str:
        """The name of this process, by which the workflow engine knows it."""
        return ALONE if self.membership is None else self.membership.member.name

    @property
    def artifacts(self) -> ArtifactStore:
        """Where uploads and results are kept."""
        return self.files.artifacts

    @property
    def folders(self) -> JobFolders:
        """The folders of unfinished jobs."""
        return self.files.folders

    @property
    def role(self) -> Role:
        """What this process is for."""
        return Role.ALL if self.membership is None else self.membership.member.role

    def lease_number(self) -> int | None:
        """Return the number of the lease under which this process may run jobs; None while it has none."""
        return 0 if self.membership is None else self.membership.lease.number()

    def check_files(self) -> None:
        """Accept the place of all files as the one that all processes share.

        Raises:
            StorageError: It is not there now.
        """
        if self.shared_place is not None:
            self.shared_place.check()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the database that jobs and workflows share."""
        return database_url(self.settings)

    @property
    def kernel_times(self) -> Path | None:
        """The folder of kernel times that jobs share; None where nothing is kept for other jobs."""
        return None if self.cache is None else self.settings.data_dir / KERNEL_TIMES

    def workspace(self, job_id: str) -> Path:
        """Return the folder of an unfinished job."""
        return self.settings.files_dir / "jobs" / job_id

    def uploads_of(self, tenant: str) -> TenantUploads:
        """Return what takes the uploads of a tenant that come with one request.

        Raises:
            StorageError: The folder that all processes see is not there now.
        """
        self.check_files()
        return TenantUploads(tenant, self.artifacts, self.store.owners, self.store.file_uses, self.uploads_in_use)

    def close(self) -> None:
        """End the parent of stages, close the database and free the data folder."""
        self.warm_parent.close()
        if self.membership is not None:
            self.membership.lease.close()
        self.store.close()
        self.lock.close()


def open_deps(
    settings: Settings,
    *,
    pipeline: Pipeline | None = None,
    stages: str = STAGE_TABLE,
    clock: Callable[[], datetime] | None = None,
    rebuild: bool = False,
    role: Role = Role.ALL,
    gpu: str | None = None,
    probes: str | None = None,
) -> Deps:
    """Open the data folder, which is created where it is missing, and take it for this process.

    Args:
        settings: The settings.
        pipeline: Another pipeline than the real one.
        stages: The module that holds the stages.
        clock: Another present than the real one, in UTC.
        rebuild: Set a database that may be damaged aside, and begin a new one with the jobs that can be read from it.
        role: What this process is for, where several share a database.
        gpu: Product name of the GPU whose stages it runs, in that role.
        probes: With which provider of ONNX Runtime it measures parts of stages while the GPU is idle; None: it does not.

    Raises:
        ProcessNameInUseError: Another process works under this one's name.
        DamagedDatabaseError: The database is damaged.
        StorageError: The disk or the database cannot be used.
        DataFolderInUseError: Another server works in the data folder.
        InvalidConfigError: It is no folder, or may not be written to.
    """
    clock = clock or _utc_now
    pipeline = pipeline or _real_pipeline()
    with ExitStack() as opened:  # what is open when an error comes is closed
        lock = opened.enter_context(_lock(_made(settings.data_dir) / "lock"))
        objects = open_objects(settings)
        store = _opened_store(settings, clock, Encryption(key_place(settings, objects)), rebuild=rebuild)
        opened.callback(store.close)
        membership, place = None, None
        files_dir = _made(settings.files_dir, "data folder" if settings.shared_dir is None else "shared folder")
        if settings.database_url is not None:
            place = open_place(settings, store, files_dir, objects)
            membership = join(store.engine, settings, settings.database_url, role, pipeline.version, gpu, probes)
            opened.callback(membership.lease.close)
        name = "" if membership is None else membership.member.name
        files = open_files(settings, store, files_dir, objects, clock, name)
        if store.is_without_owners:
            store.owners.adopt(DEFAULT_TENANT, (StoredFile(file.sha256, file.size_bytes) for file in files.artifacts.files()))
        cache = _cache(settings, pipeline, store)
        opened.pop_all()
    warm_parent = WarmParent(stages)
    stopping = threading.Event()
    return Deps(
        settings=settings,
        store=store,
        files=files,
        pipeline=pipeline,
        warm_parent=warm_parent,
        cache=cache,
        run_child=MeteredChild(partial(run_in_child, stages=stages, parent=warm_parent), store.admission),
        intake=Intake(settings, partial(run_in_child, parent=warm_parent), stopping.is_set),
        clock=clock,
        audit=audit_log(settings),
        lock=lock,
        stopping=stopping,
        filing=SharedLock(store.engine, "filing"),
        membership=membership,
        shared_place=place,
    )


def _opened_store(settings: Settings, clock: Callable[[], datetime], encryption: Encryption, *, rebuild: bool) -> JobStore:
    if settings.database_url is not None:
        return JobStore(settings.database_url, clock, encryption)
    path = settings.data_dir / DATABASE_NAME
    rows: Mapping[str, tuple[Row, ...]] = {}
    if rebuild:
        rows = set_aside(path, clock())
    else:
        check_database(path)
    is_new = not path.is_file()
    store = JobStore(database_url(settings), clock, encryption)
    store.restore_tables(rows)
    if not store.keys.has_any() and audit_log(settings).knows_keys():
        store.keys.go_on_wanting()
        logger.error("database %s: its keys are lost; callers are refused until there are new ones: `keys create`", path.name)
    restored = store.restore(rows.get("jobs", ()))
    if is_new and any((settings.data_dir / "store").glob("??/*")):
        logger.warning("database %s: it is new, and knows %d jobs; of others that had finished only a backup knows", path.name, restored)
    return store


def _real_pipeline() -> Pipeline:
    """Return the pipeline that users get."""
    return Pipeline(real.PIPELINE_VERSION, real.optimize, KEPT_STAGES, ENGINE_STAGES, SPLITS, PREPARATIONS)


def _cache(settings: Settings, pipeline: Pipeline, store: JobStore) -> MeasurementCache | None:
    if settings.cache_bytes == 0:
        return None
    version = result_identity(pipeline.version)

    def cache_of(tenant: str | None) -> StageCache:
        own = version if tenant is None else f"{version}, of tenant {tenant} alone"
        return StageCache(settings.data_dir / "cache", own, pipeline.kept_stages, max_bytes=settings.cache_bytes)

    return MeasurementCache(cache_of, store.tenant_apart)


def audit_log(settings: Settings) -> AuditLog:
    """Return the audit log in the data folder."""
    return AuditLog(settings.data_dir / AUDIT, settings.audit_bytes)


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the database: the one of the settings, or that in the data folder."""
    return settings.database_url or f"sqlite:///{(settings.data_dir / DATABASE_NAME).resolve()}"


def _made(folder: Path, name: str = "data folder") -> Path:
    """Return a folder of this server, which is there and can be written to; others may use a shared one under other users."""
    is_shared = name != "data folder"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o777 if is_shared else 0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as exc:
        found = "it is a file" if folder.is_file() else f"it cannot be used: {exc.strerror}"
        raise InvalidConfigError(
            f"{name} {folder}: {found}", fix=f"Name a folder that you may write to: {_FOLDER_SETTINGS[name]}."
        ) from exc
    return folder


def _lock(path: Path) -> BinaryIO:
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        file.close()
        raise DataFolderInUseError(
            f"data folder {path.parent}: another server works in it", fix="Stop it, or give this one another ONNX_TRT_OPTIMIZER_DATA_DIR."
        ) from exc
    return file


def _utc_now() -> datetime:
    return datetime.now(UTC)
