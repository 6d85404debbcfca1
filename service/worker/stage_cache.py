"""Results of stages kept by content: the same stage on the same data is not measured twice.

The key is the digest of the stage's name, its request with every file reduced to its content, and the version of the pipeline. Only for
stages whose answer does not depend on the machine's mood: never for trials or timings.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath

from calibration.codec import as_object, json_from_value
from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.workspace import FileRef, Workspace, file_refs, file_sha256, json_bytes, remove_tree

logger = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 8 * 2**30
_UNFINISHED_PREFIX = "unfinished-"
_ENTRY_NAME = "entry.json"


class StageCache:
    """Kept results under one folder, which several processes may share.

    An entry is a folder named by its key, renamed into place when it is whole and never changed after. An entry whose files do not have
    the content that it promises is dropped and counts as missing.
    """

    def __init__(self, root: Path, version: str, stages: Collection[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open the folder, which is created where it is missing.

        Args:
            root: The folder.
            version: The pipeline's version; results of another one are not found.
            stages: Names of those whose results are kept.
            max_bytes: Past this size the entries that were not used for the longest time are dropped.
        """
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._version = version
        self._stages = frozenset(stages)
        self._max_bytes = max_bytes

    def run(
        self, stage: str, request: Mapping[str, object], workspace: Workspace, compute: Callable[[], Mapping[str, object]]
    ) -> Mapping[str, object]:
        """Return the kept result, its files linked into the workspace, or compute and keep it."""
        if stage not in self._stages:
            return compute()
        key = self.key(stage, request, workspace)
        kept = self._find(key, workspace)
        if kept is not None:
            return kept
        result = compute()
        self._keep(key, result, workspace)
        return result

    def key(self, stage: str, request: Mapping[str, object], workspace: Workspace) -> str:
        """Return the digest of all that the stage's result depends on; file names do not count, external data of models do."""
        identity = {"stage": stage, "version": self._version, "request": _by_content(request, workspace)}
        return hashlib.sha256(json_bytes(identity)).hexdigest()

    def _find(self, key: str, workspace: Workspace) -> dict[str, object] | None:
        entry = self._root / key
        try:
            kept = as_object(Workspace(entry).read_json(FileRef(_ENTRY_NAME, file_sha256(entry / _ENTRY_NAME))))
            for ref in file_refs(kept["files"]):
                if workspace.link(entry / ref.sha256, ref.file) != ref:
                    raise ValueError(f"file {ref.file} of entry {key[:12]}: its content has changed")
            for ref in file_refs(kept["external"]):
                if workspace.copy(entry / ref.sha256, ref.file) != ref:
                    raise ValueError(f"file {ref.file} of entry {key[:12]}: its content has changed")
            entry.touch()
        except FileNotFoundError:
            remove_tree(entry)
            return None
        except (OSError, TypeError, ValueError) as exc:
            logger.warning("a kept stage result is not usable and is dropped: %s", exc)
            remove_tree(entry)
            return None
        return as_object(kept["result"])

    def _keep(self, key: str, result: Mapping[str, object], workspace: Workspace) -> None:
        files = file_refs(result)
        external = tuple(found for ref in files for found in _external_refs(ref, workspace))
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED_PREFIX, dir=self._root, ignore_cleanup_errors=True) as folder:
            unfinished = Workspace(Path(folder, "entry"))
            for ref in files:
                unfinished.link(workspace.path(ref), ref.sha256)
            for ref in external:  # the onnx package takes a hard link to external data for an attack
                unfinished.copy(workspace.path(ref), ref.sha256)
            content = {"result": result, "files": json_from_value(files), "external": json_from_value(external)}
            unfinished.write_json(_ENTRY_NAME, content)
            try:
                unfinished.root.rename(self._root / key)
            except OSError:  # another process kept the same result first
                logger.debug("stage result %s is kept already", key)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        sizes = {entry: _size_bytes(entry) for entry in self._root.iterdir() if not entry.name.startswith(_UNFINISHED_PREFIX)}
        total = sum(sizes.values())
        for entry in sorted(sizes, key=lambda path: path.stat().st_mtime):
            if total <= self._max_bytes:
                return
            remove_tree(entry)
            total -= sizes[entry]


def _by_content(value: object, workspace: Workspace) -> object:
    if isinstance(value, Mapping):
        if set(value) == {"file", "sha256"}:
            ref = FileRef(str(value["file"]), str(value["sha256"]))
            return {"sha256": ref.sha256, "external": _external_digests(ref, workspace)}
        return {str(key): _by_content(item, workspace) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_by_content(item, workspace) for item in value]
    return value


def _external_digests(ref: FileRef, workspace: Workspace) -> dict[str, str]:
    folder = workspace.path(ref).parent
    return {name: file_sha256(folder / name) for name in _external_names(ref, workspace)}


def _external_names(ref: FileRef, workspace: Workspace) -> tuple[str, ...]:
    return external_files(workspace.path(ref)) if ref.file.endswith(".onnx") else ()


def _external_refs(ref: FileRef, workspace: Workspace) -> tuple[FileRef, ...]:
    folder = PurePosixPath(ref.file).parent
    return tuple(workspace.adopt((folder / name).as_posix()) for name in _external_names(ref, workspace))


def _size_bytes(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
