"""The folder of one job: files named by content, always replaced by rename, never written in place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.codec import json_from_value, value_from_json
from engine_builder.errors import EngineError
from engine_builder.workspace.tree_removal import remove_tree

T = TypeVar("T")

SCRATCH_PREFIX = "scratch-"
_SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file of a workspace: its relative name and its content.

    ``file`` has ``/`` between its parts, is not absolute and has no ``..``; ``sha256`` is 64 lower-case hex digits.
    """

    file: str
    sha256: str

    def __post_init__(self) -> None:
        """Refuse names that could leave the workspace and digests that are none."""
        _checked_name(self.file)
        if len(self.sha256) != _SHA256_DIGITS or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"sha256 of {self.file}: found {self.sha256!r}, expected {_SHA256_DIGITS} lower-case hex digits")


class Workspace:
    """The files of one job under one folder.

    Every write goes to a temporary name and is renamed into place, so a reader sees a whole file or none. The temporaries are called
    ``scratch-*``: whatever a killed process leaves behind is removed by ``remove_scratch`` when the next stage starts. One stage at a
    time may run in a workspace.
    """

    def __init__(self, root: Path, *, temporary: Path | None = None) -> None:
        """Open the folder, which is created where it is missing.

        Args:
            root: The folder.
            temporary: Where unfinished files are written; on the same file system. The root by default.
        """
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self._temporary = self.root if temporary is None else temporary.resolve()

    def path(self, file: FileRef | str) -> Path:
        """Return the absolute path of a file, which need not exist.

        Raises:
            ValueError: The name is not relative or leads out of the workspace, also through a link.
        """
        name = file.file if isinstance(file, FileRef) else _checked_name(file)
        path = self.root / name
        if not path.resolve().is_relative_to(self.root):
            raise ValueError(f"file {name!r} leads out of the workspace")
        return path

    def has(self, file: FileRef) -> bool:
        """Return whether a file is there with the content that is asked for."""
        path = self.path(file)
        return path.is_file() and file_sha256(path) == file.sha256

    def adopt(self, name: str) -> FileRef:
        """Return the reference of a file that exists already; its content is hashed."""
        return FileRef(name, file_sha256(self.path(name)))

    def write_bytes(self, name: str, data: bytes) -> FileRef:
        """Write or replace a file."""
        with self._replacing(name) as stream:
            stream.write(data)
        return FileRef(name, hashlib.sha256(data).hexdigest())

    def write_json(self, name: str, value: object) -> FileRef:
        """Write a JSON value; equal values give equal bytes.

        Raises:
            TypeError: The value has no JSON form.
            ValueError: A number is infinite or not a number.
        """
        return self.write_bytes(name, json_bytes(value))

    def write_arrays(self, name: str, /, **arrays: NDArray[np.generic]) -> FileRef:
        """Write arrays as an uncompressed .npz, any array name allowed; equal arrays in equal order give equal bytes.

        Raises:
            TypeError: An array holds Python objects or records.
        """
        for key, array in arrays.items():
            if array.dtype.kind in "OV":
                raise TypeError(f"array {key!r}: dtype {array.dtype} cannot be stored, expected numbers, booleans or text")
        with self._replacing(name) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for key, array in arrays.items():
                with archive.open(zipfile.ZipInfo(key + ".npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        return self.adopt(name)

    def write_value(self, name: str, value: object) -> FileRef:
        """Write the JSON form of a dataclass or a container of such; see ``calibration.codec``."""
        return self.write_json(name, json_from_value(value))

    def read_value(self, cls: type[T], ref: FileRef) -> T:
        """Return the value of type ``cls`` that ``write_value`` wrote; the content is checked.

        Raises:
            TypeError: The file does not have the form of ``cls``.
        """
        return value_from_json(cls, self.read_json(ref))

    def read_json(self, ref: FileRef) -> object:
        """Return the JSON value of a file, whose content is checked."""
        value: object = json.loads(self._verified(ref).read_bytes())
        return value

    def read_arrays(self, ref: FileRef) -> dict[str, NDArray[np.generic]]:
        """Return the arrays that ``write_arrays`` wrote; the content is checked."""
        with np.load(self._verified(ref), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    def read_scores(self, ref: FileRef) -> NDArray[np.float64]:
        """Return the array ``scores`` of a file, (samples,) float64."""
        return np.asarray(self.read_arrays(ref)["scores"], dtype=np.float64)

    def link(self, source: Path, name: str) -> FileRef:
        """Bring a file in by a hard link, or by a copy where links cannot be made. The source must never be written in place."""
        return self._bring(source, name, _link_or_copy)

    def copy(self, source: Path, name: str) -> FileRef:
        """Bring a copy of a file in."""
        return self._bring(source, name, lambda origin, target: shutil.copyfile(origin, target))

    def remove_scratch(self) -> None:
        """Remove what killed stages left behind. No stage may be running."""
        for path in self.root.glob(SCRATCH_PREFIX + "*"):
            remove_tree(path)

    def _bring(self, source: Path, name: str, bring: Callable[[Path, Path], object]) -> FileRef:
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=self._temporary) as folder:
            unfinished = Path(folder, "file")
            bring(source, unfinished)
            ref = FileRef(name, file_sha256(unfinished))
            # rename() does nothing, and reports success, when both names are links to one file: the temporary folder takes the rest.
            unfinished.replace(target)
        return ref

    def _verified(self, ref: FileRef) -> Path:
        path = self.path(ref)
        found = file_sha256(path)
        if found != ref.sha256:
            raise EngineError(
                f"file {ref.file} of the job's workspace: found content {found[:12]}, expected {ref.sha256[:12]}",
                fix="Nothing but the service may write to its data folder; submit the job again.",
            )
        return path

    @contextmanager
    def _replacing(self, name: str) -> Iterator[IO[bytes]]:
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=self._temporary) as folder:
            unfinished = Path(folder, "file")
            with unfinished.open("wb") as stream:
                yield stream
            unfinished.replace(target)


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage may use besides its request.

    ``scratch`` is empty at the start and removed at the end, whatever happens. ``progress`` takes the fraction done of this stage
    (0..1) and a line for the user.
    """

    workspace: Workspace
    scratch: Path
    progress: Callable[[float, str], None]

    def part(self, low: float, high: float) -> StageContext:
        """Return the same with a progress whose 0..1 is this part of the stage's."""
        return replace(self, progress=lambda fraction, message: self.progress(low + (high - low) * fraction, message))


def json_bytes(value: object) -> bytes:
    """Return the one JSON text of a value: sorted keys, no NaN or infinity."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False).encode()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits, in constant memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_refs(value: object) -> tuple[FileRef, ...]:
    """Return every file reference inside a JSON value, in order of appearance."""
    if isinstance(value, Mapping):
        if set(value) == {"file", "sha256"}:
            return (FileRef(str(value["file"]), str(value["sha256"])),)
        return tuple(ref for item in value.values() for ref in file_refs(item))
    if isinstance(value, list | tuple):
        return tuple(ref for item in value for ref in file_refs(item))
    return ()


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _checked_name(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise ValueError(f"file name {name!r}: expected a relative name inside the workspace, without '..'")
    return name
