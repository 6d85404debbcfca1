"""The size of a .zip's table of contents, read before anything reads the table itself whole: it may be made to fill the memory."""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO


def zip_directory_size(file: BinaryIO) -> tuple[int, int]:
    """Return how many entries the table of contents has, and how many bytes it takes, by its own word.

    Args:
        file: A .zip; where it is left is not said.

    Raises:
        zipfile.BadZipFile: It has no table of contents, or a broken one.
    """
    begin = file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + _END_BYTES:
        raise zipfile.BadZipFile("File is not a zip file")  # the library's own words
    entries, size_bytes = struct.unpack_from("<HL", tail, at + 10)
    if tail[max(0, at - _LOCATOR_BYTES) : at][:4] == b"PK\x06\x07":  # ZIP64: the true numbers stand right before its locator
        record = tail[max(0, at - _LOCATOR_BYTES - _RECORD_BYTES) : at - _LOCATOR_BYTES]
        if record[:4] != b"PK\x06\x06" or struct.unpack_from("<Q", tail, at - 12)[0] != begin + at - _LOCATOR_BYTES - _RECORD_BYTES:
            raise zipfile.BadZipFile("broken ZIP64 table of contents")
        entries, size_bytes = struct.unpack_from("<QQ", record, 32)
    return entries, size_bytes


_END_BYTES, _LOCATOR_BYTES, _RECORD_BYTES = 22, 20, 56
_TAIL_BYTES = _END_BYTES + 65535 + _LOCATOR_BYTES + _RECORD_BYTES
