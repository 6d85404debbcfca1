"""Reads a .tar, plain or compressed, trusting nothing in it.

Read here, header by header: the library's own reader keeps every extended header in memory and copies the global ones for each entry, which
a small archive can make take minutes and gigabytes. Known are plain files and folders, long names of GNU tar, and of extended (pax) headers
the name and the size; what else these say (times, owners, comments) changes nothing here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from service.intake.archive_entry import MAX_ENTRIES, ArchiveEntry, too_many, unsafe
from service.intake.decompression import PIECE_BYTES, bunzipped, gunzipped, unxzipped

COMPRESSIONS: Mapping[bytes, Callable[[Iterator[bytes]], Iterator[bytes]]] = {  # by the first bytes of a file
    b"\x1f\x8b\x08": gunzipped,
    b"BZh": bunzipped,
    b"\xfd7zXZ\0": unxzipped,
}
MAX_EXTENDED_BYTES = 2**14  # of one extended header or long name
_MAX_EXTENDED_IN_A_ROW = 4
_BLOCK = tarfile.BLOCKSIZE


def tar_entries(archive: Path) -> Iterator[ArchiveEntry]:
    """Yield the plain files of a .tar; folders are passed over.

    Raises:
        InvalidModelError: An entry is unsafe.
        TooLargeError: There are too many entries.
        tarfile.TarError: The archive is broken; so do ``ValueError`` and ``OSError`` say.
    """
    with archive.open("rb") as file:
        yield from _entries(_Stream(_content(file)))


def _content(file: BinaryIO) -> Iterator[bytes]:
    head = file.read(max(map(len, COMPRESSIONS)))
    file.seek(0)
    pieces = iter(lambda: file.read(_RAW_BYTES), b"")
    return next((expand(pieces) for magic, expand in COMPRESSIONS.items() if head.startswith(magic)), pieces)


def _entries(stream: _Stream) -> Iterator[ArchiveEntry]:
    count, in_a_row = 0, 0
    long_name: str | None = None
    records: dict[str, str] = {}
    while (block := stream.read(_BLOCK)).strip(b"\0"):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        count += 1
        if count > 2 * MAX_ENTRIES:
            raise too_many()
        if header.size < 0:
            raise tarfile.HeaderError("a negative size")
        if header.type in _EXTENDED:
            in_a_row += 1
            if header.size > MAX_EXTENDED_BYTES or in_a_row > _MAX_EXTENDED_IN_A_ROW:
                found = f"an extended header of {header.size} bytes, {in_a_row} in a row"
                raise tarfile.HeaderError(f"{found}; expected at most {MAX_EXTENDED_BYTES} and {_MAX_EXTENDED_IN_A_ROW}")
            data = stream.read(header.size)
            stream.skip(-header.size % _BLOCK)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.type == tarfile.XGLTYPE:
                _check_global(_pax_records(data))
            elif header.type in _LOCAL_PAX:
                records = _pax_records(data)
            continue
        name = records.get("path", long_name if long_name is not None else header.name)
        if any(key.startswith("GNU.sparse") for key in records):
            raise unsafe(name, "it is a sparse file")
        size_bytes = _size(records, header.size)
        long_name, records, in_a_row = None, {}, 0
        if header.type == tarfile.DIRTYPE or (header.type in _PLAIN and name.endswith("/")):
            if size_bytes:
                raise unsafe(name, "it is a folder with content of its own")
            continue
        if header.type not in _PLAIN:
            raise unsafe(name, "it is a link, a device or a sparse file")
        yield ArchiveEntry(name, size_bytes, stream.pieces(size_bytes))
        stream.skip(-size_bytes % _BLOCK)


class _Stream:
    """Bytes in their order, of which few are held."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held, self._at = b"", 0

    def read(self, size_bytes: int) -> bytes:
        """Return so many bytes, which are few; nothing at the end.

        Raises:
            tarfile.ReadError: The end comes in between.
        """
        data = b"".join(self._take(size_bytes))
        if len(data) not in {0, size_bytes}:
            raise tarfile.ReadError("it ends early")
        return data

    def skip(self, size_bytes: int) -> None:
        """Pass over so many bytes, or to the end."""
        for _ in self._take(size_bytes):
            pass

    def pieces(self, size_bytes: int) -> Iterator[bytes]:
        """Yield so many bytes, in pieces.

        Raises:
            tarfile.ReadError: The end comes before.
        """
        left = size_bytes
        for piece in self._take(size_bytes):
            left -= len(piece)
            yield piece
        if left:
            raise tarfile.ReadError("it ends early")

    def _take(self, size_bytes: int) -> Iterator[bytes]:
        while size_bytes > 0:
            if self._at == len(self._held):
                found = next(self._pieces, None)
                if found is None:
                    return
                self._held, self._at = found, 0
            piece = self._held[self._at : self._at + size_bytes]
            self._at += len(piece)
            size_bytes -= len(piece)
            yield piece


def _pax_records(data: bytes) -> dict[str, str]:
    """Return the records of an extended header, each "<length> <key>=<value>" and a line end."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        space = data.find(b" ", at, at + _LENGTH_DIGITS)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise tarfile.HeaderError("a broken extended header")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at = end
    return records


def _check_global(records: Mapping[str, str]) -> None:
    """Refuse a global header that would name or size every file alike."""
    if not _DECIDING.isdisjoint(records) or any(key.startswith("GNU.sparse") for key in records):
        raise tarfile.HeaderError("a global extended header that gives every file one name or size")


def _size(records: Mapping[str, str], of_header: int) -> int:
    text = records.get("size")
    if text is None:
        return of_header
    if not (text.isascii() and text.isdecimal() and len(text) < _SIZE_DIGITS):
        raise tarfile.HeaderError("an extended header with a size that is no number")
    return int(text)


_LOCAL_PAX = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_EXTENDED = _LOCAL_PAX | {tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME}
_PLAIN = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_DECIDING = frozenset({"path", "linkpath", "size"})
_LENGTH_DIGITS, _SIZE_DIGITS = 8, 19
_RAW_BYTES = min(PIECE_BYTES, 2**16)
