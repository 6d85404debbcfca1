"""What a file of samples says that it holds, against what is there: a few bytes can promise an array that no memory holds."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from tokenize import TokenError
from typing import IO, BinaryIO

import numpy as np

from calibration.data.zip_directory import zip_directory_size
from calibration.errors import InvalidCalibrationSetError

MAX_ARRAYS = 10_000
MAX_NAME_CHARACTERS = 1000
_ENTRY_BYTES = 1200  # of a table of contents, for one array
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_MOST_BY_DEFLATE = 1032  # times its size
_SAVE_AGAIN = "Write the file with numpy.savez or numpy.savez_compressed."
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def claimed_by_archive(file: BinaryIO, name: str) -> int:
    """Return how many bytes the arrays of an .npz take in memory.

    Args:
        file: An .npz; where it is left is not said.
        name: Of the file; a message names an array of it.

    Raises:
        InvalidCalibrationSetError: An array's header promises more data than there is.
        ValueError: A header cannot be read.
        zipfile.BadZipFile: The archive cannot be read.
    """
    total = 0
    entries, directory_bytes = zip_directory_size(file)
    if entries > MAX_ARRAYS or directory_bytes > MAX_ARRAYS * _ENTRY_BYTES:
        raise _too_many(name)
    with zipfile.ZipFile(file) as archive:
        _check_members(archive.infolist(), name)
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as member:
                    _check(member, entry.file_size, f"array '{entry.filename.removesuffix('.npy')}'")
            total += entry.file_size
    return total


def _check_members(members: Sequence[zipfile.ZipInfo], name: str) -> None:
    """Refuse what numpy never writes: a small file of it could hold gigabytes, or two arrays of one name."""
    if len(members) > MAX_ARRAYS:
        raise _too_many(name)
    seen: set[str] = set()
    for member in members:
        shown = f"array '{member.filename.removesuffix('.npy')[:MAX_NAME_CHARACTERS]}'"
        if len(member.filename) > MAX_NAME_CHARACTERS:
            raise InvalidCalibrationSetError(
                f"{shown}...: its name has {len(member.filename)} characters, at most {MAX_NAME_CHARACTERS} expected", fix=_SAVE_AGAIN
            )
        if member.flag_bits & _ENCRYPTED:
            raise InvalidCalibrationSetError(f"{shown}: is encrypted", fix=_SAVE_AGAIN)
        if member.compress_type not in _METHODS:
            raise InvalidCalibrationSetError(
                f"{shown}: is compressed by method {member.compress_type} of .zip, stored or deflate expected", fix=_SAVE_AGAIN
            )
        if member.compress_type == zipfile.ZIP_DEFLATED and member.file_size > _MOST_BY_DEFLATE * (member.compress_size + 1):
            raise InvalidCalibrationSetError(
                f"{shown}: is damaged: {member.compress_size} compressed bytes cannot hold the {member.file_size} that it says",
                fix=_SAVE_AGAIN,
            )
        if member.filename in seen:
            raise InvalidCalibrationSetError(f"{shown}: is there twice in {name}", fix=_SAVE_AGAIN)
        seen.add(member.filename)


def _too_many(name: str) -> InvalidCalibrationSetError:
    return InvalidCalibrationSetError(f"{name}: holds more than {MAX_ARRAYS} arrays", fix="Write one array per input of the model.")


def claimed_by_array(file: BinaryIO, name: str) -> int:
    """Return how many bytes the array of an .npy takes in memory.

    Args:
        file: An .npy; where it is left is not said.
        name: Of the file, for the message.

    Raises:
        InvalidCalibrationSetError: The header promises more data than there is.
        ValueError: The header cannot be read.
    """
    total = file.seek(0, 2)
    file.seek(0)
    _check(file, total, name)
    return total


def _check(file: IO[bytes], size_bytes: int, name: str) -> None:
    read = _HEADERS.get(np.lib.format.read_magic(file))
    if read is None:  # a version that only numpy's own reader knows
        return
    try:
        shape, _, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, OverflowError, MemoryError) as exc:  # what literals can raise
        raise InvalidCalibrationSetError(f"{name}: is damaged: its header cannot be read ({exc})", fix=_SAVE_AGAIN) from exc
    if any(type(length) is not int for length in shape):
        raise InvalidCalibrationSetError(f"{name}: is damaged: its header gives the shape {shape}, whole numbers expected", fix=_SAVE_AGAIN)
    promised, there = math.prod(shape) * dtype.itemsize, size_bytes - file.tell()
    if not dtype.hasobject and promised > there:
        raise InvalidCalibrationSetError(
            f"{name}: is damaged or truncated: its header promises {promised} bytes (shape {shape}, {dtype}), {there} are there",
            fix="Copy or write the file again.",
        )
