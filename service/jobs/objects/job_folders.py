"""The folders of unfinished jobs: on a disk that all processes see, or one of each process, filled from the object store."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from calibration.errors import InputError
from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import SCRATCH_PREFIX, FileRef, Workspace, file_refs, file_sha256
from service.errors import DamagedArtifactError
from service.jobs.objects.object_artifacts import ObjectArtifactStore
from service.jobs.objects.work_files import WorkFile, WorkFiles
from service.jobs.records import StoredFile
from service.worker.stage_log import LOG_NAME

logger = logging.getLogger(__name__)


class JobFolders(Protocol):
    """Where each unfinished job has its files. Safe to share between threads.

    Every method may raise a ``StorageError``, after which the same call can be made again.
    """

    def laid_out(self, job_id: str) -> None:
        """Let all processes see what is in the folder of a job that is about to be created."""

    def leave(self, job_id: str) -> None:
        """Need the folder here no longer: the job has its row, and whoever runs it makes the folder."""

    def begin(self, job_id: str) -> None:
        """Make the folder of a job that runs here from now on."""

    def ready(self, job_id: str, files: Sequence[FileRef]) -> None:
        """Make files of the job readable in its folder here, with what belongs to them (weights of ONNX files, what is beside plans).

        Raises:
            DamagedArtifactError: The object store lost one or has other bytes.
        """

    def made(self, job_id: str, files: Sequence[FileRef], *, with_log: bool = True) -> None:
        """Let all processes see files that a stage wrote into the folder here, and the log; not that of a stage that others run beside."""

    def drop(self, job_id: str, folder: str) -> None:
        """Need what is in a folder of the job's folder no longer, wherever it is; what has another name, too, stays under that."""

    def take_log(self, job_id: str) -> None:
        """Take in what a stage in another process added to the log, which begins as it does here."""

    def open_log(self, job_id: str) -> BinaryIO | None:
        """Open the log of an unfinished job, as far as it is seen here; None where there is none."""

    def is_there(self, job_id: str) -> bool:
        """Whether the job has files yet: it has not ended, or its last stage is still ending."""

    def remove(self, job_id: str) -> None:
        """Remove what the job has, for good."""


class SharedJobFolders:
    """One folder, that all processes see."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, which holds a folder for each job."""
        self._root = root

    def laid_out(self, job_id: str) -> None:
        """Do nothing: it is seen."""

    def leave(self, job_id: str) -> None:
        """Do nothing: it is the one of all."""

    def begin(self, job_id: str) -> None:
        """Do nothing: it is there."""

    def ready(self, job_id: str, files: Sequence[FileRef]) -> None:
        """Do nothing: they are there."""

    def made(self, job_id: str, files: Sequence[FileRef], *, with_log: bool = True) -> None:
        """Do nothing: they are seen."""

    def drop(self, job_id: str, folder: str) -> None:
        """Remove it."""
        remove_tree(self._root / job_id / folder)

    def take_log(self, job_id: str) -> None:
        """Do nothing: it is written to by all."""

    def open_log(self, job_id: str) -> BinaryIO | None:
        """Open the log in the job's folder."""
        try:
            return (self._root / job_id / LOG_NAME).open("rb")
        except OSError:  # the job has not begun, or ends just now
            return None

    def is_there(self, job_id: str) -> bool:
        """Whether the job has a folder."""
        return (self._root / job_id).is_dir()

    def remove(self, job_id: str) -> None:
        """Remove the folder."""
        remove_tree(self._root / job_id)


class OwnJobFolders:
    """A folder of this process, and the objects that the job needs."""

    def __init__(self, root: Path, artifacts: ObjectArtifactStore, work: WorkFiles, ended: Callable[[str], bool]) -> None:
        """Use folders of this process.

        Args:
            root: Holds a folder for each job.
            artifacts: Where files go.
            work: The files of unfinished jobs.
            ended: Whether a job of this id has ended.
        """
        self._root = root
        self._artifacts = artifacts
        self._work = work
        self._ended = ended
        self._known: dict[tuple[str, int, int, int], str] = {}  # digests of files: path, inode, size, time of the last change
        self._named: dict[str, tuple[FileRef, ...]] = {}  # what JSON files name, by their digest

    def laid_out(self, job_id: str) -> None:
        """Store all files of the folder."""
        root = self._root / job_id
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        models = {beside: name for name in names for beside in _beside(root, name)}
        self._work.note(job_id, [WorkFile(name, self._artifacts.put(root / name), models.get(name)) for name in names])

    def leave(self, job_id: str) -> None:
        """Remove it."""
        remove_tree(self._root / job_id)

    def begin(self, job_id: str) -> None:
        """Make the folder, with the log as far as other processes wrote it: what does not go on from that is not of the job."""
        root = self._root / job_id
        root.mkdir(parents=True, exist_ok=True)
        log, kept = root / LOG_NAME, self._work.largest(job_id, LOG_NAME)
        if kept is not None and not _begins_with(log, kept):
            with _unfinished(log) as path:
                self._artifacts.copy(kept.sha256, path)  # it is appended to

    def ready(self, job_id: str, files: Sequence[FileRef]) -> None:
        """Fetch what is not here, or is another content; with it what a JSON file names in its turn."""
        wanted, seen = list(files), set[FileRef]()
        while wanted:
            file = wanted.pop()
            if file in seen or file.file == LOG_NAME:
                continue
            seen.add(file)
            path = self._fetched(job_id, file, self._artifacts.fetch)
            if file.file.endswith(".json"):
                wanted += self._named_in(path, file.sha256)
            for beside in self._work.beside(job_id, file.file) if file.file.endswith(_NOT_ALONE) else ():
                self._fetched(job_id, beside, self._artifacts.copy)  # the onnx package takes a link for an attack

    def made(self, job_id: str, files: Sequence[FileRef], *, with_log: bool = True) -> None:
        """Store the files, those beside them, and the log.

        Whatever is stored last of a log is the longest: where stages run beside each other, only one may store what it has.
        """
        root = self._root / job_id
        made = []
        for file in dict.fromkeys(files):
            if file.file != LOG_NAME:
                made.append(WorkFile(file.file, self._artifacts.put(root / file.file)))
            made += [WorkFile(name, self._artifacts.put(root / name), file.file) for name in _beside(root, file.file)]
        if with_log:
            with suppress(FileNotFoundError), (root / LOG_NAME).open("rb") as source, self._artifacts.writer() as writer:
                while data := source.read(_CHUNK_BYTES):
                    writer.write(data)
                made.append(WorkFile(LOG_NAME, writer.commit()))
        self._work.note(job_id, made)
        for file_made in made:
            if file_made.name == LOG_NAME:
                self._work.forget_smaller(job_id, LOG_NAME, file_made.stored.size_bytes)

    def drop(self, job_id: str, folder: str) -> None:
        """Refer to its objects no longer under these names, and remove the folder here."""
        self._work.forget_under(job_id, folder)
        remove_tree(self._root / job_id / folder)

    def take_log(self, job_id: str) -> None:
        """Append what the stored log has more, unless both went on by themselves."""
        log, kept = self._root / job_id / LOG_NAME, self._work.largest(job_id, LOG_NAME)
        if kept is None or not log.exists() or log.stat().st_size >= kept.size_bytes:
            return
        with self._artifacts.open(kept.sha256) as source:  # logs are limited to a few MB
            own = log.read_bytes()
            if source.read(len(own)) == own:
                with log.open("ab") as appended:
                    appended.write(source.read())

    def open_log(self, job_id: str) -> BinaryIO | None:
        """Open the log here, or as the process that runs the job last stored it."""
        kept = self._work.largest(job_id, LOG_NAME)
        with suppress(OSError):
            own = (self._root / job_id / LOG_NAME).open("rb")
            if kept is None or os.fstat(own.fileno()).st_size >= kept.size_bytes:
                return own
            own.close()
        if kept is None:
            return None
        with suppress(InputError), self._artifacts.open(kept.sha256) as source:
            return os.fdopen(os.dup(source.fileno()), "rb")
        return None  # it has just ended

    def is_there(self, job_id: str) -> bool:
        """Whether objects are kept for the job."""
        return self._work.has_any(job_id)

    def remove(self, job_id: str) -> None:
        """Need its objects no longer, and remove the folder here."""
        self._work.forget(job_id)
        remove_tree(self._root / job_id)

    def sweep(self, active: Callable[[str], bool]) -> None:
        """Remove folders here of jobs that have ended elsewhere.

        Args:
            active: Whether a job runs in this process.
        """
        for path in self._root.iterdir() if self._root.is_dir() else ():
            if not active(path.name) and self._ended(path.name):
                remove_tree(path)

    def _fetched(self, job_id: str, file: FileRef, fetch: Callable[[str, Path], None]) -> Path:
        path = Workspace(self._root / job_id).path(file)
        if self._digest(path) != file.sha256:
            with _unfinished(path) as unfinished, _named(job_id, file.file):
                fetch(file.sha256, unfinished)
        return path

    def _named_in(self, path: Path, sha256: str) -> tuple[FileRef, ...]:
        """Return the files that a JSON file names; read once for each content."""
        if sha256 not in self._named:
            if len(self._named) >= _MOST_KNOWN:
                self._named.clear()
            try:
                self._named[sha256] = file_refs(json.loads(path.read_bytes()))
            except (ValueError, RecursionError):  # none of ours
                self._named[sha256] = ()
        return self._named[sha256]

    def _digest(self, path: Path) -> str | None:
        """Return the digest of a file, which is read once as long as it stays the same; None where there is none."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        key = (str(path), found.st_ino, found.st_size, found.st_mtime_ns)
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = file_sha256(path)
        return self._known[key]


def _begins_with(path: Path, kept: StoredFile) -> bool:
    """Whether a file, of a few MB at most, is there and begins with some content."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(kept.size_bytes)).hexdigest() == kept.sha256
    except FileNotFoundError:
        return False


def _beside(root: Path, name: str) -> tuple[str, ...]:
    """Return the files that belong to a file though nobody names them: weights of an ONNX file, all that a builder wrote beside a plan."""
    folder, path = PurePosixPath(name).parent, root / name
    found: Iterable[str] = ()
    if name.endswith(_MODEL):
        found = external_files(path)
    elif name.endswith(_PLAN):
        found = sorted(
            one.name for one in path.parent.iterdir() if one.is_file() and one != path and not one.name.startswith(SCRATCH_PREFIX)
        )
    return tuple((folder / one).as_posix() for one in found)


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Give a name beside a file, under which it is written, and rename it when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.parent / f"{SCRATCH_PREFIX}{secrets.token_hex(8)}"
    try:
        yield path
        with suppress(FileNotFoundError):
            target.unlink()  # rename() does nothing where both are links to one file
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _named(job_id: str, name: str) -> Iterator[None]:
    """Let an error say which file of which job it is about."""
    try:
        yield
    except DamagedArtifactError as error:
        raise DamagedArtifactError(f"job {job_id}: {name}: {error.detail}", fix=error.fix) from error


_MODEL, _PLAN = ".onnx", ".plan"
_NOT_ALONE = (_MODEL, _PLAN)
_CHUNK_BYTES = 2**20
_MOST_KNOWN = 10_000
