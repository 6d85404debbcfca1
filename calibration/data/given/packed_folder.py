"""Packs a folder of samples (pictures with their labels, ONNX test sets, .npy arrays) into the .zip that a job takes."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from calibration.data.formats.named_labels.picture_labels import CLASSES_FILE
from calibration.data.formats.onnx_test_sets import is_test_input
from calibration.data.formats.pictures import is_picture
from calibration.data.formats.zip_members import MAX_MEMBERS
from calibration.data.readers import suffixes
from calibration.errors import InvalidCalibrationSetError

_CHUNK_BYTES = 2**20


def pack_folder(folder: Path, target: Path, what: str) -> None:
    """Write the samples in a folder as an uncompressed .zip; equal folders give equal bytes. Folders behind links are left out.

    Args:
        folder: Of the user.
        target: The file to write.
        what: The folder's part, for messages: "calibration set".

    Raises:
        InvalidCalibrationSetError: The folder holds no samples, or cannot be read.
    """
    try:
        names = sorted(_samples_in(folder))
        if not any(map(_is_sample, names)):
            raise _without_samples(folder, what)
        if len(names) > MAX_MEMBERS:
            raise InvalidCalibrationSetError(
                f"{what} {folder}: holds {len(names)} files, at most {MAX_MEMBERS} expected",
                fix="Give fewer samples; a few hundred are usual.",
            )
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name in names:
                with (folder / name).open("rb") as source, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                    shutil.copyfileobj(source, member, _CHUNK_BYTES)
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        raise InvalidCalibrationSetError(f"{what} {folder}: cannot be read: {exc.strerror}{where}", fix="Change its permissions.") from exc


def _samples_in(folder: Path) -> Iterator[str]:
    """Yield the names of what a job reads, relative to the folder, with ``/`` between their parts."""
    for parent, _, files in os.walk(folder, onerror=_fail):
        for file in files:
            path = Path(parent, file)
            is_at_top = Path(parent) == folder
            if (_is_sample(file) and (is_at_top or not file.endswith(".npy"))) or file == CLASSES_FILE or file.lower().endswith(".csv"):
                yield path.relative_to(folder).as_posix()


def _is_sample(name: str) -> bool:
    return is_picture(name) or is_test_input(name) or name.endswith(".npy")


def _fail(error: OSError) -> None:
    raise error


def _without_samples(folder: Path, what: str) -> InvalidCalibrationSetError:
    inside = sorted(path.name for path in folder.iterdir())
    files = [name for name in inside if name.endswith(suffixes())]
    if files:
        shown = ", ".join(f"'{name}'" for name in files[:3])
        return InvalidCalibrationSetError(f"{what} {folder}: is a folder, and holds {shown}", fix=f"Give the file: {folder / files[0]}")
    shown = ", ".join(f"'{name}'" for name in inside[:3]) or "nothing"
    return InvalidCalibrationSetError(
        f"{what} {folder}: is a folder without samples: it holds {shown}",
        fix="Give a folder of pictures (JPEG, PNG, WebP, BMP) or of ONNX test sets, or a file of samples.",
    )
