"""Arrays of an .npz file that stay in the file: what is read of them takes no memory that was not let go of.

The file is mapped, not read. The pages that were touched count as this process's memory until ``let_go`` gives them up; they are still in
the page cache, from where they come again.
"""

from __future__ import annotations

import math
import mmap
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LOCAL_HEADER_BYTES = 30  # of a member, before its name; the lengths of the name and of an extra field are its last four bytes

Array = NDArray[np.generic]


class MappedArrays:
    """The arrays of a file as ``numpy.savez`` writes it, read-only. They may be used from several threads while pages are let go of."""

    def __init__(self, path: Path) -> None:
        """Map the file, which must not be written to any more.

        Args:
            path: An .npz whose members are not compressed.

        Raises:
            ValueError: One is compressed, or no array of plain numbers.
        """
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._arrays = {info.filename.removesuffix(".npy"): self._array(archive, info) for info in archive.infolist()}

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The arrays by name, those without the ending of a file."""
        return self._arrays

    def let_go(self) -> None:
        """Give up the pages that were touched so far; whoever reads them again gets them again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _array(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"member {info.filename!r} is compressed, expected one as it is")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(member)
            header_bytes = member.tell()
        if dtype.hasobject:
            raise ValueError(f"member {info.filename!r} holds objects, expected plain numbers")
        local = info.header_offset + _LOCAL_HEADER_BYTES
        names = sum(int.from_bytes(self._map[local - place : local - place + 2], "little") for place in (4, 2))
        values = np.frombuffer(self._map, dtype, math.prod(shape), local + names + header_bytes)
        return values.reshape(shape, order="F" if is_fortran else "C")
