"""Unpacks an uploaded archive of a model and its external data, trusting nothing in it.

Refused: absolute names and names with "..", links and devices, a name twice, encrypted entries, more entries or bytes than the limits,
and an expansion beyond RATIO times the archive (a bomb). Only .zip and plain .tar: a compressed .tar could hide a bomb in its headers.
"""

from __future__ import annotations

import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from calibration.errors import InvalidModelError
from engine_builder.workspace.external_files import external_files
from service.errors import TooLargeError

MAX_ENTRIES = 20_000
RATIO = 20


def is_archive(path: Path) -> bool:
    """Whether the file begins like a .zip or a .tar (an ONNX model never does)."""
    with path.open("rb") as file:
        head = file.read(_TAR_MAGIC_AT + 5)
    return head[:4] in {b"PK\x03\x04", b"PK\x05\x06"} or head[_TAR_MAGIC_AT:] == b"ustar"


def unpack_model(archive: Path, folder: Path, max_bytes: int) -> Path:
    """Unpack the archive into a new folder and return the path of the one .onnx file in it.

    Args:
        archive: A file for which ``is_archive`` holds.
        folder: Must not exist. On an error it is removed again.
        max_bytes: The most that the unpacked files may take together.

    Raises:
        InvalidModelError: The archive is broken, unsafe, or holds no model or several.
        TooLargeError: It holds too much.
    """
    folder.mkdir(parents=True)
    try:
        limit = min(max_bytes, max(RATIO * archive.stat().st_size, _ALWAYS_ALLOWED_BYTES))
        unpack = _unpack_zip if zipfile.is_zipfile(archive) else _unpack_tar
        unpack(archive, folder, limit)
        return _the_model(folder)
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as exc:
        shutil.rmtree(folder, ignore_errors=True)
        raise InvalidModelError(f"archive: it cannot be unpacked ({exc})", fix="Pack the model again, as a plain .zip or .tar.") from exc
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def pack_model(model: Path, target: Path) -> bool:
    """Write a model and its external data as a .zip, and return True; a model without external data is left alone, and False returned."""
    beside = external_files(model)
    if not beside:
        return False
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.write(model, model.name if model.suffix == ".onnx" else "model.onnx")
        for name in beside:
            archive.write(model.parent / name, name)
    return True


def _the_model(folder: Path) -> Path:
    models = sorted(path for path in folder.rglob("*.onnx") if not path.name.startswith("._"))  # macOS packs such shadows
    if len(models) != 1:
        if not models and any(folder.rglob("data.pkl")):
            raise InvalidModelError("archive: expected one .onnx file, found a PyTorch checkpoint", fix="Export it with torch.onnx.export.")
        if not models and any(folder.rglob("*.weights.h5")):
            raise InvalidModelError(
                "archive: expected one .onnx file, found a Keras model", fix="Export it: model.export(path, format='onnx')."
            )
        names = ", ".join(str(path.relative_to(folder)) for path in models[:5]) or "none"
        raise InvalidModelError(f"archive: expected one .onnx file, found {names}", fix="Pack one model with its external data files.")
    return models[0]


def _unpack_zip(archive: Path, folder: Path, limit: int) -> None:
    _check_zip_directory(archive)
    with zipfile.ZipFile(archive) as source:
        entries = source.infolist()
        _check_total(sum(entry.file_size for entry in entries), limit)
        save = _Saver(folder, limit)
        for entry in entries:
            mode = entry.external_attr >> 16
            if entry.flag_bits & _ZIP_ENCRYPTED:
                raise _unsafe(entry.filename, "it is encrypted")
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _unsafe(entry.filename, "it is a link or a device")
            if not entry.is_dir():
                save(entry.filename, lambda entry=entry: source.open(entry))  # type: ignore[misc]  # mypy cannot infer a lambda with a default


def _check_zip_directory(archive: Path) -> None:
    """Refuse a table of contents that would fill the memory, before zipfile reads it whole."""
    with archive.open("rb") as file:
        begin = file.seek(max(0, file.seek(0, 2) - _ZIP_TAIL_BYTES))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("no table of contents")
    entries, directory_bytes = struct.unpack_from("<HL", tail, at + 10)
    if tail[max(0, at - 20) : at][:4] == b"PK\x06\x07":  # ZIP64: the true numbers stand right before its locator
        record = tail[max(0, at - 76) : at - 20]
        if record[:4] != b"PK\x06\x06" or struct.unpack_from("<Q", tail, at - 12)[0] != begin + at - 76:
            raise zipfile.BadZipFile("broken ZIP64 table of contents")
        entries, directory_bytes = struct.unpack_from("<QQ", record, 32)
    if entries > MAX_ENTRIES or directory_bytes > _DIRECTORY_BYTES:
        raise _too_many()


def _unpack_tar(archive: Path, folder: Path, limit: int) -> None:
    _check_tar_headers(archive, limit)
    with tarfile.open(archive, "r:") as source:
        save = _Saver(folder, limit)
        for entry in source:
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse():
                raise _unsafe(entry.name, "it is a link, a device or a sparse file")
            save(entry.name, lambda entry=entry: source.extractfile(entry))  # type: ignore[misc]  # mypy cannot infer a lambda with a default


def _check_tar_headers(archive: Path, limit: int) -> None:
    """Refuse huge extended headers, which tarfile reads whole, and too many entries."""
    total = 0
    for count, header in enumerate(_tar_headers(archive)):
        if count > 2 * MAX_ENTRIES:
            raise _too_many()
        if header.type in _TAR_EXTENDED and header.size > _EXTENDED_BYTES:
            raise tarfile.HeaderError(f"an extended header of {header.size} bytes")
        total += header.size
    _check_total(total, limit)


def _tar_headers(archive: Path) -> Iterator[tarfile.TarInfo]:
    with archive.open("rb") as file:
        while len(block := file.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE and block.strip(b"\0"):
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            yield header
            if header.size < 0:
                raise tarfile.HeaderError("a negative size")
            file.seek(-(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, 1)


class _Saver:
    """Writes entries into the folder and counts what was really written."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._count = 0
        self._written = 0

    def __call__(self, name: str, opened: Callable[[], IO[bytes] | None]) -> None:
        self._count += 1
        if self._count > MAX_ENTRIES:
            raise _too_many()
        target = self._folder / _safe_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = opened()
        if source is None:
            raise _unsafe(name, "it is no plain file")
        try:
            with source, target.open("xb") as file:
                while data := source.read(_CHUNK_BYTES):
                    self._written += len(data)
                    _check_total(self._written, self._limit)
                    file.write(data)
        except FileExistsError as exc:
            raise _unsafe(name, "the name is there twice") from exc


def _safe_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise _unsafe(name, "the name leads out of the archive")
    return path


def _unsafe(name: str, why: str) -> InvalidModelError:
    return InvalidModelError(f"archive entry {name!r}: {why}", fix="Pack only plain files, with relative names.")


def _check_total(total: int, limit: int) -> None:
    if total > limit:
        raise TooLargeError(f"archive: unpacked it takes more than {limit} bytes, the limit", fix="Send a smaller model.")


def _too_many() -> TooLargeError:
    return TooLargeError(f"archive: it has more than {MAX_ENTRIES} entries", fix="Save the external data as one file and pack again.")


_TAR_MAGIC_AT = 257
_TAR_EXTENDED = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_ZIP_ENCRYPTED = 0x1
_ZIP_TAIL_BYTES = 22 + 65535 + 76
_DIRECTORY_BYTES = 16 * 2**20  # a .zip's table of contents
_EXTENDED_BYTES = 2**16  # one extended header of a .tar
_ALWAYS_ALLOWED_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20
