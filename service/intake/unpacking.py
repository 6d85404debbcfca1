"""Unpacks an uploaded archive of a model and its external data, trusting nothing in it.

Refused: names that lead out of the archive or are too long or deep, links and devices, a name twice, encrypted entries, more entries or
bytes than the limits, and an expansion beyond RATIO times the archive (a bomb). What is written is counted while it is written. A server
does this in a child process (``in_child``).
"""

from __future__ import annotations

import errno
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from calibration.errors import InvalidModelError
from engine_builder.workspace.tree_removal import remove_tree
from service.disk_room import check_room, is_full
from service.errors import InsufficientStorageError, TooLargeError
from service.intake.archive_entry import MAX_ENTRIES, ArchiveEntry, safe_name, too_many, unsafe
from service.intake.tar_archive import COMPRESSIONS, tar_entries
from service.intake.zip_archive import zip_entries

RATIO = 20
ALWAYS_ALLOWED_BYTES = 64 * 2**20


def is_archive(path: Path) -> bool:
    """Whether the file begins like a .zip or a .tar, plain or compressed (an ONNX model never does)."""
    with path.open("rb") as file:
        return begins_like_archive(file.read(HEAD_BYTES))


def begins_like_archive(head: bytes) -> bool:
    """Whether these are the first ``HEAD_BYTES`` of a .zip or a .tar, plain or compressed."""
    return _is_zip(head) or head[_TAR_MAGIC_AT:] == b"ustar" or head.startswith(tuple(COMPRESSIONS))


def unpack_model(archive: Path, folder: Path, max_bytes: int, *, reserve_bytes: int = 0) -> Path:
    """Unpack the archive into a new folder and return the path of the one .onnx file in it.

    Args:
        archive: A file for which ``is_archive`` holds.
        folder: Must not exist. On an error it is removed again.
        max_bytes: The most that the unpacked files may take together.
        reserve_bytes: What has to stay free on the disk.

    Raises:
        InvalidModelError: The archive is broken, unsafe, or holds no model or several.
        TooLargeError: It holds too much.
        InsufficientStorageError: The disk has no room for it.
    """
    folder.mkdir(parents=True)
    try:
        limit = min(max_bytes, max(RATIO * archive.stat().st_size, ALWAYS_ALLOWED_BYTES))
        with archive.open("rb") as file:
            entries = zip_entries(archive) if _is_zip(file.read(HEAD_BYTES)) else tar_entries(archive)
        _save(entries, folder, limit, reserve_bytes)
        return _the_model(folder)
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, tarfile.TarError) as exc:
        remove_tree(folder)
        raise _translated(exc) from exc
    except BaseException:
        remove_tree(folder)
        raise


def _translated(error: Exception) -> Exception:
    if isinstance(error, OSError):
        if is_full(error):
            return InsufficientStorageError(
                "disk: it is full, or a quota is reached", fix="Try again later, or ask the operator to make room."
            )
        if error.errno == errno.EFBIG:
            return TooLargeError("archive: a file in it is larger than this server takes", fix="Send a smaller model.")
    # The text of the system alone: the whole error would name folders of the server.
    why = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
    return InvalidModelError(f"archive: it cannot be unpacked ({why})", fix="Pack the model again, as a plain .zip or .tar.")


def _the_model(folder: Path) -> Path:
    found = [path for path in folder.rglob("*") if path.is_file()]
    models = sorted(path for path in found if path.suffix == ".onnx" and not path.name.startswith("._"))  # macOS packs such shadows
    if len(models) != 1:
        names = {path.name for path in found}
        if not models and "data.pkl" in names:
            raise InvalidModelError("archive: expected one .onnx file, found a PyTorch checkpoint", fix="Export it with torch.onnx.export.")
        if not models and any(name.endswith(".weights.h5") for name in names):
            raise InvalidModelError(
                "archive: expected one .onnx file, found a Keras model", fix="Export it: model.export(path, format='onnx')."
            )
        shown = ", ".join(str(path.relative_to(folder)) for path in models[:5]) or "none"
        raise InvalidModelError(f"archive: expected one .onnx file, found {shown}", fix="Pack one model with its external data files.")
    return models[0]


def _save(entries: Iterator[ArchiveEntry], folder: Path, limit: int, reserve_bytes: int) -> None:
    """Write every entry, and count what is really written."""
    written = said = 0
    for count, entry in enumerate(entries):
        if count >= MAX_ENTRIES:
            raise too_many()
        target = folder / safe_name(entry.name)
        said += entry.size_bytes
        _check_total(said, limit)
        check_room(folder, entry.size_bytes, reserve_bytes)
        _make_folder(target.parent, entry.name)
        try:
            with target.open("xb") as file:
                for piece in entry.pieces:
                    written += len(piece)
                    _check_total(written, limit)
                    file.write(piece)
        except FileExistsError as exc:
            raise unsafe(entry.name, "the name is there twice") from exc


def _make_folder(folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise unsafe(name, "one of its folders is a file, too") from exc


def _check_total(total: int, limit: int) -> None:
    if total > limit:
        raise TooLargeError(f"archive: unpacked it takes more than {limit} bytes, the limit", fix="Send a smaller model.")


def _is_zip(head: bytes) -> bool:
    return head[:4] in {b"PK\x03\x04", b"PK\x05\x06"}


_TAR_MAGIC_AT = 257
HEAD_BYTES = _TAR_MAGIC_AT + 5
