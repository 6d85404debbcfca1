"""Results of stages kept by content: the same stage on the same data is not measured twice.

The key is the digest of the stage's name, its request with every file reduced to its content, and what else a result depends on
(``result_identity``). Only for stages whose answer does not depend on the machine's mood: trials and timings are kept for an unfinished job
alone (``job_record``).
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath

from calibration.codec import as_object, json_from_value
from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import FileRef, Workspace, file_refs, file_sha256, json_bytes

logger = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 4 * 2**30
_UNFINISHED_PREFIX = "unfinished-"
_UNFINISHED_SECONDS = 24 * 3600.0  # older than that, whoever wrote it is gone
_ENTRY_NAME = "entry.json"
_DIGITS = frozenset("0123456789abcdef")
_KEY_LENGTH = 64


class StageCache:
    """Kept results under one folder, which several processes may share.

    An entry is a folder named by its key, renamed into place when it is whole and never changed after. An entry that does not have the
    content that it promises is dropped and counts as missing. A cache that cannot be written costs a warning, never a job.
    """

    def __init__(self, root: Path, version: str, stages: Collection[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open the folder, which is created where it is missing, for this user alone.

        Args:
            root: The folder.
            version: Of whatever makes the results; those of another one are not found.
            stages: Names of those whose results are kept.
            max_bytes: Past this size the entries that were not used for the longest time are dropped.

        Raises:
            OSError: It cannot be created.
        """
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = root
        self._version = version
        self._stages = frozenset(stages)
        self._max_bytes = max_bytes
        self._digests: dict[tuple[str, int, int, int], str] = {}

    def keeps(self, stage: str) -> bool:
        """Whether results of this stage are kept for any job."""
        return stage in self._stages

    def run(
        self, stage: str, request: Mapping[str, object], workspace: Workspace, compute: Callable[[], Mapping[str, object]]
    ) -> Mapping[str, object]:
        """Return the kept result, its files linked into the workspace, or compute and keep it."""
        if not self.keeps(stage):
            return compute()
        key = self.key(stage, request, workspace)
        kept = self.find(key, workspace)
        if kept is not None:
            return kept
        result = compute()
        self.keep(key, result, workspace)
        return result

    def key(self, stage: str, request: Mapping[str, object], workspace: Workspace, *, job: str = "") -> str:
        """Return the digest of all that the stage's result depends on; file names do not count, external data of models do.

        Args:
            stage: Its name.
            request: What it reads.
            workspace: Where its files are.
            job: For a result that belongs to one job alone, what tells the job and its run of the stage from all others.
        """
        identity = {"stage": stage, "version": self._version, "job": job, "request": self._by_content(request, workspace)}
        return hashlib.sha256(json_bytes(identity)).hexdigest()

    def find(self, key: str, workspace: Workspace) -> Mapping[str, object] | None:
        """Return a kept result, its files linked into the workspace; None where there is none that is whole."""
        entry = self.root / key
        try:
            kept = _content_of(entry)
            for ref in file_refs(kept["files"]):
                if workspace.link(entry / ref.sha256, ref.file) != ref:
                    raise ValueError(f"file {ref.file} of entry {key[:12]}: its content has changed")
            for ref in file_refs(kept["external"]):
                if workspace.copy(entry / ref.sha256, ref.file) != ref:
                    raise ValueError(f"file {ref.file} of entry {key[:12]}: its content has changed")
            os.utime(entry)
            return as_object(kept["result"])
        except FileNotFoundError:
            self.forget(key)
        except (OSError, TypeError, ValueError, KeyError) as exc:
            logger.warning("a kept stage result is not usable and is dropped: %s", exc)
            self.forget(key)
        return None

    def keep(self, key: str, result: Mapping[str, object], workspace: Workspace) -> None:
        """Keep a result and its files; one that takes more than half of the room is not kept."""
        try:
            self._write(key, result, workspace)
            self._drop_oldest()
        except OSError as exc:
            logger.warning("a stage result is not kept: %s", exc)

    def has(self, key: str) -> bool:
        """Whether there is an entry, which may turn out to be damaged."""
        return (self.root / key).is_dir()

    def forget(self, key: str) -> None:
        """Drop an entry, if it is there."""
        try:
            remove_tree(self.root / key)
        except OSError as exc:
            logger.warning("a kept stage result cannot be dropped: %s", exc)

    def _write(self, key: str, result: Mapping[str, object], workspace: Workspace) -> None:
        files = file_refs(result)
        external = tuple(found for ref in files for found in _external_refs(ref, workspace))
        if sum(workspace.path(ref).stat().st_size for ref in (*files, *external)) > self._max_bytes // 2:
            return
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED_PREFIX, dir=self.root, ignore_cleanup_errors=True) as folder:
            unfinished = Workspace(Path(folder, "entry"))
            for ref in files:
                unfinished.link(workspace.path(ref), ref.sha256)
            for ref in external:  # the onnx package takes a hard link to external data for an attack
                unfinished.copy(workspace.path(ref), ref.sha256)
            content = {"result": result, "files": json_from_value(files), "external": json_from_value(external)}
            unfinished.write_json(_ENTRY_NAME, {"sha256": hashlib.sha256(json_bytes(content)).hexdigest(), "content": content})
            try:
                unfinished.root.rename(self.root / key)
            except OSError:  # another process kept the same result first
                logger.debug("stage result %s is kept already", key)

    def _drop_oldest(self) -> None:
        """Drop what was not used for the longest time, until the rest has room; another process may be at it too."""
        entries: list[tuple[float, int, Path]] = []
        for path in self.root.iterdir():
            try:
                used = path.stat().st_mtime
                if len(path.name) == _KEY_LENGTH and set(path.name) <= _DIGITS:
                    entries.append((used, _size_bytes(path), path))
                elif path.name.startswith(_UNFINISHED_PREFIX) and time.time() - used > _UNFINISHED_SECONDS:
                    remove_tree(path)
            except FileNotFoundError:
                continue
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                return
            remove_tree(path)
            total -= size

    def _by_content(self, value: object, workspace: Workspace) -> object:
        if isinstance(value, Mapping):
            if set(value) == {"file", "sha256"}:
                ref = FileRef(str(value["file"]), str(value["sha256"]))
                return {"sha256": ref.sha256, "external": self._external_digests(ref, workspace)}
            return {str(key): self._by_content(item, workspace) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._by_content(item, workspace) for item in value]
        return value

    def _external_digests(self, ref: FileRef, workspace: Workspace) -> dict[str, str]:
        folder = workspace.path(ref).parent
        return {name: self._digest(folder / name) for name in _external_names(ref, workspace)}

    def _digest(self, path: Path) -> str:
        """Return the digest of external data, which may be many GB and are asked for by every stage: of the same file only once."""
        found = path.stat()
        key = (str(path), found.st_ino, found.st_size, found.st_ctime_ns)  # the time that no writer can set
        if key not in self._digests:
            self._digests[key] = file_sha256(path)
        return self._digests[key]


def _content_of(entry: Path) -> Mapping[str, object]:
    """Return what an entry says of itself.

    Raises:
        ValueError: It is damaged.
    """
    kept = as_object(Workspace(entry).read_json(FileRef(_ENTRY_NAME, file_sha256(entry / _ENTRY_NAME))))
    content = as_object(kept["content"])
    if hashlib.sha256(json_bytes(content)).hexdigest() != kept["sha256"]:
        raise ValueError(f"entry {entry.name[:12]}: its content has changed")
    return content


def _external_names(ref: FileRef, workspace: Workspace) -> tuple[str, ...]:
    return external_files(workspace.path(ref)) if ref.file.endswith(".onnx") else ()


def _external_refs(ref: FileRef, workspace: Workspace) -> tuple[FileRef, ...]:
    folder = PurePosixPath(ref.file).parent
    return tuple(workspace.adopt((folder / name).as_posix()) for name in _external_names(ref, workspace))


def _size_bytes(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
