"""Reads a .zip, trusting nothing in it.

The library's own reader expands a bzip2 or LZMA entry without a bound, so only the table of contents is read by it; entries are expanded
here, piece by piece. Entries may not overlap (a bomb of which each entry holds all others), and have to be as long as they say.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from calibration.data.zip_directory import zip_directory_size
from service.intake.archive_entry import MAX_ENTRIES, ArchiveEntry, too_many, unsafe
from service.intake.decompression import PIECE_BYTES, bunzipped, inflated, lzma_of_zip

METHODS: Mapping[int, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    zipfile.ZIP_STORED: iter,
    zipfile.ZIP_DEFLATED: inflated,
    zipfile.ZIP_BZIP2: bunzipped,
    zipfile.ZIP_LZMA: lzma_of_zip,
}
MAX_DIRECTORY_BYTES = 4 * 2**20


def zip_entries(archive: Path) -> Iterator[ArchiveEntry]:
    """Yield the plain files of a .zip; folders are passed over.

    Raises:
        InvalidModelError: An entry is unsafe.
        TooLargeError: There are too many entries.
        zipfile.BadZipFile: The archive is broken; so do ``ValueError`` and ``OSError`` say.
    """
    with archive.open("rb") as file:
        count, directory_bytes = zip_directory_size(file)
        if count > MAX_ENTRIES or directory_bytes > MAX_DIRECTORY_BYTES:
            raise too_many()
        with zipfile.ZipFile(file) as source:
            entries, end = source.infolist(), source.start_dir
        if len(entries) > MAX_ENTRIES:
            raise too_many()
        for entry in entries:
            _check(entry)
        begins = _data_begins(file, entries, end)
        for entry in entries:
            if not entry.is_dir():
                yield ArchiveEntry(entry.filename, entry.file_size, _pieces(file, entry, begins[entry.header_offset]))


def _check(entry: zipfile.ZipInfo) -> None:
    if entry.orig_filename != entry.filename:
        raise unsafe(entry.filename, "the name is cut by a zero byte")
    if entry.flag_bits & _ENCRYPTED:
        raise unsafe(entry.filename, "it is encrypted")
    if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise unsafe(entry.filename, "it is a link or a device")
    if entry.compress_type not in METHODS:
        known = "stored, deflate, bzip2 and LZMA"
        raise unsafe(entry.filename, f"it is compressed by method {entry.compress_type}, expected one of {known}")


def _data_begins(file: BinaryIO, entries: Sequence[zipfile.ZipInfo], end: int) -> dict[int, int]:
    """Return where the data of each entry begin, by where its header does; all of them lie apart, before ``end``."""
    begins: dict[int, int] = {}
    last = 0
    for entry in sorted(entries, key=lambda one: one.header_offset):
        if entry.header_offset < last or entry.header_offset in begins:
            raise unsafe(entry.filename, "it overlaps another entry")
        file.seek(entry.header_offset)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise zipfile.BadZipFile("an entry that lies outside the file")
        magic, flags, name_bytes, extra_bytes = _HEADER.unpack(header)
        if magic != b"PK\x03\x04":
            raise zipfile.BadZipFile("an entry without a header")
        name = file.read(name_bytes)
        if name.decode("utf-8" if flags & _UTF8 else "cp437") != entry.orig_filename:
            raise unsafe(entry.filename, "the archive has two names for it")
        begins[entry.header_offset] = begin = entry.header_offset + _HEADER.size + name_bytes + extra_bytes
        last = begin + entry.compress_size
        if last > end:
            raise unsafe(entry.filename, "it overlaps the table of contents")
    return begins


def _pieces(file: BinaryIO, entry: zipfile.ZipInfo, begin: int) -> Iterator[bytes]:
    """Yield the content of an entry, which has to be as long as it says and to have the checksum that it says."""
    left, checksum = entry.file_size, 0
    for piece in METHODS[entry.compress_type](_raw(file, begin, entry.compress_size)):
        left -= len(piece)
        if left < 0:
            raise unsafe(entry.filename, f"it holds more than the {entry.file_size} bytes that it says")
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if left:
        raise unsafe(entry.filename, f"it holds {entry.file_size - left} bytes, and says {entry.file_size}")
    if checksum != entry.CRC:
        raise unsafe(entry.filename, "its checksum is not that of its content")


def _raw(file: BinaryIO, begin: int, size_bytes: int) -> Iterator[bytes]:
    end = begin + size_bytes
    while begin < end:
        file.seek(begin)
        data = file.read(min(_RAW_BYTES, end - begin))
        if not data:
            raise zipfile.BadZipFile("it ends early")
        begin += len(data)
        yield data


_HEADER = struct.Struct("<4s2xH18xHH")
_ENCRYPTED, _UTF8 = 0x1, 0x800
_RAW_BYTES = min(PIECE_BYTES, 2**16)
