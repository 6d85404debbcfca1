"""The formats of files of samples: one table, a row a format, and what is asked of it.

A file is known by its first bytes, never by its name; a .zip by what lies in it, too. A new format is a module beside this one and a row in
``READERS``; what reads a file, names it and describes the formats to users asks the table.
"""

from __future__ import annotations

import codecs
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from calibration.data.claimed_sizes import claimed_by_archive, claimed_by_array
from calibration.data.formats import safetensors_files
from calibration.data.formats.byte_arrays import with_floats
from calibration.data.formats.onnx_test_sets import is_test_input, read_test_sets
from calibration.data.formats.pictures import is_picture, read_pictures
from calibration.data.formats.polygraphy_files import read_polygraphy
from calibration.data.formats.token_rows import read_json_lines, read_parquet, with_masks
from calibration.data.formats.wanted import Found, Wanted
from calibration.data.formats.zip_members import check_directory, members_of
from calibration.data.mistaken_files import HEAD_BYTES, mistaken, mistaken_archive
from calibration.data.numpy_files import read_npy, read_npz
from calibration.errors import InvalidCalibrationSetError

Array: TypeAlias = NDArray[np.generic]


def _untold(file: BinaryIO, name: str) -> int:
    """Return 0: what the arrays take is known when they are read."""
    return 0


def _is_array(name: str) -> bool:
    return name.endswith(".npy")


@dataclass(frozen=True, slots=True)
class Reader:
    """A format of files. The functions get the file at its start, and the words that a message calls it by."""

    magic: bytes  # bytes near the start of every such file, and of no other format but another .zip
    suffix: str  # ".npz"
    description: str  # what follows the suffix in a sentence: "with one array per model input"
    unpacked_bytes: Callable[[BinaryIO, str], int]  # what its arrays take in memory, 0: not known before; refuses a file that lies about it
    read: Callable[[BinaryIO, str, Wanted], Found]
    magic_at: int = 0  # where the magic lies
    is_text: bool = False  # a mark of UTF-8 and empty lines may stand before the magic
    holds: Callable[[str], bool] | None = None  # of a .zip: whether a file of this name makes it one of this format

    def begins(self, head: bytes) -> bool:
        """Return whether a file that begins with these bytes, HEAD_BYTES of them, may be of this format."""
        if self.is_text:
            head = head.removeprefix(codecs.BOM_UTF8).lstrip()
        return head.startswith(self.magic, self.magic_at)


READERS = (
    Reader(b"PK", ".npz", "with one array per model input", claimed_by_archive, read_npz, holds=_is_array),
    Reader(b"\x93NUMPY", ".npy", "for one input", claimed_by_array, read_npy),
    Reader(b"PK", ".zip", "or a folder of pictures", _untold, read_pictures, holds=is_picture),
    Reader(b"PK", ".zip", "or a folder of ONNX test sets (test_data_set_0/input_0.pb)", _untold, read_test_sets, holds=is_test_input),
    Reader(
        safetensors_files.MAGIC,
        ".safetensors",
        "with one tensor per model input",
        safetensors_files.unpacked_bytes,
        safetensors_files.read_safetensors,
        magic_at=safetensors_files.MAGIC_AT,
    ),
    Reader(b"[", ".json", "of inputs that Polygraphy saved", _untold, read_polygraphy, is_text=True),
    Reader(b"{", ".jsonl", "with one object of lists a line", _untold, read_json_lines, is_text=True),
    Reader(b"PAR1", ".parquet", "with one column per model input", _untold, read_parquet),
)


def read_arrays(path: Path, wanted: Wanted, what: str = "calibration file") -> Found:
    """Return the arrays in a file of samples, by name, prepared as the user states.

    Args:
        path: Of the file.
        wanted: What the model takes, and what the user says of the samples.
        what: The file's part, for messages.

    Raises:
        InvalidCalibrationSetError: The file cannot be read, is of no known format, or takes more memory than there is.
        InvalidConfigError: What the user says of the samples does not fit them, or is missing.
    """
    name = f"{what} '{path.name}'"
    size_bytes = 0
    try:
        with path.open("rb") as file:
            reader = _reader_of(file, name)
            size_bytes = reader.unpacked_bytes(file, name)
            file.seek(0)
            found = reader.read(file, name, wanted)
            return replace(found, arrays=with_masks(with_floats(found.arrays, wanted), wanted))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as exc:
        raise InvalidCalibrationSetError(
            f"{name}: cannot be read: {exc.strerror}", fix=f"Give the path of a file: {', '.join(suffixes())}."
        ) from exc
    except MemoryError as exc:
        takes = f"takes {size_bytes} bytes when it is unpacked, " if size_bytes else "takes, when it is unpacked, "
        raise InvalidCalibrationSetError(
            f"{name}: {takes}more than the memory that this stage may use",
            fix="Give fewer samples (a few hundred are usual), or raise the memory limit.",
        ) from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as exc:
        raise InvalidCalibrationSetError(f"{name}: is damaged or truncated: {exc}", fix="Copy or write the file again.") from exc


def suffix_of(path: Path) -> str:
    """Return the suffix of the format that the file begins like; that of the first one for a file of none, which its reader will refuse.

    No more than its first bytes is read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return next((reader.suffix for reader in READERS if reader.begins(head)), READERS[0].suffix)


def suffixes() -> tuple[str, ...]:
    """Return the suffix of each format, in the order of the table."""
    return tuple(dict.fromkeys(reader.suffix for reader in READERS))


def formats_in_words() -> str:
    """Return the formats for a sentence: ".npz with one array per model input, or .npy for one input"."""
    return ", or ".join(f"{reader.suffix} {reader.description}" for reader in READERS)


def _reader_of(file: BinaryIO, name: str) -> Reader:
    """Return the reader of an open file, and leave that at its start."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    fitting = [reader for reader in READERS if reader.begins(head)]
    if not any(reader.holds for reader in fitting) and fitting:
        return fitting[0]
    if fitting:
        return _reader_of_archive(file, name, fitting)
    found = mistaken(head) or (f"is none of {', '.join(suffixes())}", _WRITE)
    raise InvalidCalibrationSetError(f"{name}: {found[0]}", fix=found[1])


def _reader_of_archive(file: BinaryIO, name: str, readers: Sequence[Reader]) -> Reader:
    """Return the reader of a .zip: the first one of which it holds a file."""
    check_directory(file, name)
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        names = [entry.filename for entry in archive.infolist()]
        for reader in readers:
            if reader.holds is None or any(map(reader.holds, names)):
                file.seek(0)
                return reader
        found, fix = mistaken_archive([entry.filename for entry in members_of(archive, name)])
    raise InvalidCalibrationSetError(f"{name}: {found}", fix=fix)


_WRITE = "Write it with numpy.savez(path, **{input_name: array, ...}), arrays of numbers only."
