"""Reads a .safetensors file: eight bytes with the length of a JSON header, the header, and the tensors' bytes behind it.

The header names each tensor: ``{"input": {"dtype": "F32", "shape": [8, 3], "data_offsets": [0, 96]}}``, offsets from the header's end.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import BinaryIO

import ml_dtypes
import numpy as np

from calibration.data.formats.json_text import value_from_json_text
from calibration.data.formats.wanted import Array, Found, Wanted
from calibration.errors import InvalidCalibrationSetError

MAGIC, MAGIC_AT = b'\0\0{"', 6  # the upper bytes of a length that is small, and the header's beginning
_MAX_HEADER_BYTES = 16 * 2**20
_TYPES: Mapping[str, np.dtype[np.generic]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_FIX = "Write it with safetensors.numpy.save_file({input_name: array, ...}, path), the first axis of each array counting samples."


def read_safetensors(file: BinaryIO, name: str, wanted: Wanted) -> Found:
    """Return the tensors of a file under their own names; bfloat16 as float32.

    Args:
        file: At its start.
        name: Of the file, for a message.
        wanted: What the model takes.

    Raises:
        InvalidCalibrationSetError: The header is not one of safetensors, or promises other data than there are.
    """
    size = file.seek(0, 2)
    file.seek(0)
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size - 8, _MAX_HEADER_BYTES):
        raise _damaged(name, f"its header has {length} bytes, at most {min(size - 8, _MAX_HEADER_BYTES)} expected")
    header = value_from_json_text(file.read(length).decode("utf-8", errors="replace"), name, "its header", _FIX)
    if not isinstance(header, Mapping):
        raise _damaged(name, "its header is no object")
    start = 8 + length
    arrays = {
        str(key): _tensor(file, entry, start, size, f"{name}: tensor '{key}'") for key, entry in header.items() if key != "__metadata__"
    }
    return Found(arrays)


def unpacked_bytes(file: BinaryIO, name: str) -> int:
    """Return how many bytes the tensors take in memory: those of the file."""
    return file.seek(0, 2)


def _tensor(file: BinaryIO, entry: object, start: int, size: int, what: str) -> Array:
    if not isinstance(entry, Mapping):
        raise _damaged(what, "its entry in the header is no object")
    kind, shape, offsets = entry.get("dtype"), _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    dtype = _TYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        raise InvalidCalibrationSetError(
            f"{what} has the type {kind!r:.40}, one of {', '.join(_TYPES)} expected", fix="Convert it to a plain number type."
        )
    if shape is None or offsets is None or len(offsets) != len(("begin", "end")):
        raise _damaged(what, "its shape or its offsets are no whole numbers from 0")
    begin, end = offsets
    promised = math.prod(shape) * dtype.itemsize
    if promised != end - begin or start + end > size:
        raise _damaged(what, f"its header promises {promised} bytes at {begin} to {end}, the file has {size - start} of data")
    file.seek(start + begin)
    array: Array = np.frombuffer(file.read(promised), dtype=dtype).reshape(shape)
    return array.astype(np.float32) if kind == "BF16" else array


def _sizes(value: object) -> list[int] | None:
    """Return a list of whole numbers from 0, None of anything else."""
    found = [one for one in value if isinstance(one, int) and not isinstance(one, bool) and one >= 0] if isinstance(value, list) else None
    return found if found is not None and isinstance(value, list) and len(found) == len(value) else None


def _damaged(what: str, found: str) -> InvalidCalibrationSetError:
    return InvalidCalibrationSetError(f"{what}: is damaged or truncated: {found}", fix="Copy or write the file again.")
