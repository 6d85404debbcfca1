"""The formats of files of samples: one table, a row a format, and what is asked of it.

A file is known by its first bytes, never by its name. A new format is a module beside this one and a row in ``READERS``; what reads a file,
names it and describes the formats to users asks the table.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.data.claimed_sizes import claimed_by_archive, claimed_by_array
from calibration.data.numpy_files import read_npy, read_npz
from calibration.errors import InvalidCalibrationSetError

Array: TypeAlias = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Reader:
    """A format of files. Both functions get the file at its start, and the words that a message calls it by."""

    magic: bytes  # the first bytes of every such file, and of no other
    suffix: str  # ".npz"
    description: str  # what follows the suffix in a sentence: "with one array per model input"
    unpacked_bytes: Callable[[BinaryIO, str], int]  # what its arrays take in memory; refuses a file that claims more than it holds
    read: Callable[[BinaryIO, str, Sequence[str]], dict[str, Array]]  # (file, words, names of the model's inputs) -> arrays by name


READERS = (
    Reader(b"PK", ".npz", "with one array per model input", claimed_by_archive, read_npz),
    Reader(b"\x93NUMPY", ".npy", "for one input", claimed_by_array, read_npy),
)


def read_arrays(path: Path, inputs: Sequence[str]) -> dict[str, Array]:
    """Return the arrays in a file of samples, by name.

    Args:
        path: Of the file.
        inputs: Names of the model's inputs: of a format that holds one array, it is that of the only input.

    Raises:
        InvalidCalibrationSetError: The file cannot be read, is of no known format, or takes more memory than there is.
    """
    name = f"calibration file '{path.name}'"
    size_bytes = 0
    try:
        with path.open("rb") as file:
            reader = _reader_of(file, name)
            size_bytes = reader.unpacked_bytes(file, name)
            file.seek(0)
            return reader.read(file, name, inputs)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as exc:
        raise InvalidCalibrationSetError(
            f"{name}: cannot be read: {exc.strerror}", fix=f"Give the path of an {' or '.join(suffixes())} file."
        ) from exc
    except MemoryError as exc:
        raise InvalidCalibrationSetError(
            f"{name}: takes {size_bytes} bytes when it is unpacked, more than the memory that this stage may use",
            fix="Give fewer samples (a few hundred are usual), or raise the memory limit.",
        ) from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as exc:
        raise InvalidCalibrationSetError(f"{name}: is damaged or truncated: {exc}", fix="Copy or write the file again.") from exc


def suffix_of(path: Path) -> str:
    """Return the suffix of the format that the file begins like; that of the first one for a file of none, which its reader will refuse."""
    with path.open("rb") as file:
        start = file.read(_LONGEST)
    return next((reader.suffix for reader in READERS if start.startswith(reader.magic)), READERS[0].suffix)


def suffixes() -> tuple[str, ...]:
    """Return the suffix of each format, in the order of the table."""
    return tuple(reader.suffix for reader in READERS)


def formats_in_words() -> str:
    """Return the formats for a sentence: ".npz with one array per model input, or .npy for one input"."""
    return ", or ".join(f"{reader.suffix} {reader.description}" for reader in READERS)


def _reader_of(file: BinaryIO, name: str) -> Reader:
    """Return the reader of an open file, and leave that at its start."""
    start = file.read(_LONGEST)
    file.seek(0)
    for reader in READERS:
        if start.startswith(reader.magic):
            return reader
    found = f"is neither {' nor '.join(suffixes())}"
    if not start:
        found = "is empty"
    elif start.startswith(_PICKLE):
        found = f"is a Python pickle, which is never loaded; expected {' or '.join(suffixes())}"
    raise InvalidCalibrationSetError(
        f"{name}: {found}", fix="Write it with numpy.savez(path, **{input_name: array, ...}), arrays of numbers only."
    )


_LONGEST = max(len(reader.magic) for reader in READERS)
_PICKLE = b"\x80"
