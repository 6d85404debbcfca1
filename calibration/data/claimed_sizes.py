"""What a file of samples says that it holds, against what is there: a few bytes can promise an array that no memory holds."""

from __future__ import annotations

import math
import zipfile
from typing import IO, BinaryIO

import numpy as np

from calibration.errors import InvalidCalibrationSetError

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
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as member:
                    _check(member, entry.file_size, f"array '{entry.filename.removesuffix('.npy')}'")
            total += entry.file_size
    return total


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
    shape, _, dtype = read(file)
    promised, there = math.prod(shape) * dtype.itemsize, size_bytes - file.tell()
    if not dtype.hasobject and promised > there:
        raise InvalidCalibrationSetError(
            f"{name}: is damaged or truncated: its header promises {promised} bytes (shape {shape}, {dtype}), {there} are there",
            fix="Copy or write the file again.",
        )
