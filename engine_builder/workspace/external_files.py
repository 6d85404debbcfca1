"""Which other files an ONNX file keeps its weights in, found without parsing it.

The parent of the stages never parses a model: it looks for the protobuf entry ``{key: "location", value: ...}`` in the file's bytes. A
chance match names a file that does not exist and is passed over.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ENTRY = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x1f])")
_MOST_BYTES = 14  # of a match
_LOW_BITS = 0x7F
_BLOCK_BYTES = 16 << 20  # looked at before they are let go of: a mapped file counts as memory


def external_files(model: Path) -> tuple[str, ...]:
    """Return the names, relative to the model's folder, of the existing files that hold its external data; sorted.

    Names that lead out of the folder are left out: whoever reads the model refuses them.
    """
    if model.stat().st_size == 0:
        return ()
    with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        names = {_name_after(data, match) for match in _matches(data)}
    return tuple(sorted(name for name in names if name is not None and _is_beside(model.parent, name)))


def _matches(data: mmap.mmap) -> Iterator[re.Match[bytes]]:
    """Yield every entry, one on the border of two blocks maybe twice."""
    for start in range(0, len(data), _BLOCK_BYTES):
        yield from _ENTRY.finditer(data, start, start + _BLOCK_BYTES + _MOST_BYTES)
        if hasattr(mmap, "MADV_DONTNEED"):
            data.madvise(mmap.MADV_DONTNEED)


def _name_after(data: mmap.mmap, match: re.Match[bytes]) -> str | None:
    digits = match.group(1)
    size = digits[0] if len(digits) == 1 else (digits[0] & _LOW_BITS) | digits[1] << 7
    try:
        return data[match.end() : match.end() + size].decode()
    except UnicodeDecodeError:
        return None


def _is_beside(folder: Path, name: str) -> bool:
    pure = PurePosixPath(name)
    if "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
        return False
    path = folder / pure
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())
