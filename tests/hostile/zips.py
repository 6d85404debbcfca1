"""Archives of the kind .zip that lie, bomb, overlap, escape, or are cut."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.hostile.upload import Ends, Upload

MIB = 2**20
STORED, DEFLATE, DEFLATE64, BZIP2, LZMA, ZSTD = 0, 8, 9, 12, 14, 93
LINK, FIFO, DEVICE, FOLDER = 0o120777, 0o010644, 0o020644, 0o040755


@dataclass(frozen=True)
class Entry:
    """An entry, of which every field may lie."""

    name: bytes = b"model.onnx"
    data: bytes = b"model"  # as it stands in the archive
    method: int = STORED
    size: int | None = None
    checksum: int | None = None
    flags: int = 0x800
    mode: int = 0
    local_name: bytes | None = None
    offset: int | None = None
    packed_size: int | None = None
    has_local: bool = True


def archive(*entries: Entry, count: int | None = None, comment: bytes = b"", prefix: bytes = b"", extra: bytes = b"") -> bytes:
    body, directory = bytearray(prefix), bytearray()
    for entry in entries:
        size = len(entry.data) if entry.size is None else entry.size
        packed = len(entry.data) if entry.packed_size is None else entry.packed_size
        checksum = zlib.crc32(entry.data) if entry.checksum is None else entry.checksum
        common = struct.pack("<HHHHLLL", entry.flags, entry.method, 0, 33, checksum, packed, size)
        at = len(body) if entry.offset is None else entry.offset
        if entry.has_local:
            local = entry.name if entry.local_name is None else entry.local_name
            body += b"PK\3\4" + struct.pack("<H", 20) + common + struct.pack("<HH", len(local), 0) + local + entry.data
        directory += b"PK\1\2" + struct.pack("<BBH", 20, 3, 20) + common
        directory += struct.pack("<HHHHHLL", len(entry.name), len(extra), 0, 0, 0, entry.mode << 16, at) + entry.name + extra
    number = len(entries) if count is None else count
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, number, number, len(directory), len(body), len(comment)) + comment
    return bytes(body + directory + end)


def zeros_deflated(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * mebibytes + packer.flush()


def zeros_in_bzip2(mebibytes: int) -> bytes:
    return bz2.compress(bytes(MIB)) * mebibytes


def zeros_in_lzma(mebibytes: int, dictionary: int = MIB) -> bytes:
    return struct.pack("<BBHBL", 9, 4, 5, 93, dictionary) + _raw_lzma(mebibytes)


@cache
def _raw_lzma(mebibytes: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": MIB, "lc": 3, "lp": 0, "pb": 2, "mode": lzma.MODE_FAST}]
    return lzma.compress(bytes(mebibytes * MIB), lzma.FORMAT_RAW, filters=filters)


def bomb(method: int, packed: bytes, says: int) -> bytes:
    return archive(Entry(data=packed, method=method, size=says, checksum=0))


def many(count: int, data: bytes = b"", method: int = STORED, size: int = 0) -> bytes:
    return archive(*(Entry(b"%d.bin" % index, data, method, size, 0) for index in range(count)))


def zip64(entries: int, directory_bytes: int) -> bytes:
    sound = archive(Entry())
    at = len(sound) - 22
    record = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, entries, entries, directory_bytes, sound.index(b"PK\1\2"))
    return sound[:at] + record + b"PK\6\7" + struct.pack("<LQL", 0, at, 1) + b"PK\5\6" + b"\xff\xff" * 8 + b"\0\0"


def named(*names: bytes) -> bytes:
    return archive(*(Entry(name, b"%d" % index) for index, name in enumerate(names)))


def nested(levels: int) -> bytes:
    inner = b"PK\3\4 not really"
    for _ in range(levels):
        inner = archive(Entry(data=inner))
    return inner


def overlapping(count: int) -> bytes:
    """Entries that all have the same bytes."""
    entries = [Entry(b"model.onnx", b"x" * 1000)] + [
        Entry(b"%d.bin" % index, b"x" * 1000, offset=0, local_name=b"model.onnx", has_local=False) for index in range(count)
    ]
    return archive(*entries)


def full_overlap() -> bytes:
    """An entry whose data hold the header and the data of the next, as the known bombs have it."""
    inner = archive(Entry(b"inner.bin", b"y" * 100))
    inner = inner[: inner.index(b"PK\1\2")]
    outer = Entry(b"model.onnx", inner)
    begin = 30 + len(outer.name)
    return archive(outer, Entry(b"inner.bin", b"y" * 100, offset=begin, has_local=False))


ESCAPES = {
    "absolute": b"/etc/model.onnx",
    "parent": b"../model.onnx",
    "deep-parent": b"a/b/../../../model.onnx",
    "backslash": b"..\\model.onnx",
    "drive": b"C:model.onnx",
    "drive-slash": b"C:/model.onnx",
    "unc": b"//host/share/model.onnx",
    "only-dots": b"..",
    "line-end": b"model\nINFO forged.onnx",
    "escape-sequence": b"\x1b[2Jmodel.onnx",
    "right-to-left": "\u202exnno.model".encode(),
    "zero-width": "mo\u200bdel.onnx".encode(),
    "line-separator": "model\u2028.onnx".encode(),
    "zero-byte": b"model.onnx\0.bin",
    "not-utf8": b"\xff\xfe.onnx",
    "long": b"n" * 5000 + b".onnx",
    "long-part": b"n" * 300 + b".onnx",
    "deep": b"d/" * 100 + b"model.onnx",
    "very-deep": b"d/" * 5000 + b"model.onnx",
}
TRUNCATED_AT = (5, 30, 60, 100, 130)
ANY = Ends.FAILS


def zips() -> Iterator[Upload]:
    for name, path in ESCAPES.items():
        yield Upload(f"zip-name-{name}", "model", lambda path=path: named(path))  # type: ignore[misc]  # a lambda with a default
    cases = {
        "deflate-bomb": lambda: bomb(DEFLATE, zeros_deflated(4000), 4000 * MIB),
        "deflate-bomb-lies": lambda: bomb(DEFLATE, zeros_deflated(4000), 1000),
        "bzip2-bomb": lambda: bomb(BZIP2, zeros_in_bzip2(4000), 4000 * MIB),
        "bzip2-bomb-lies": lambda: bomb(BZIP2, zeros_in_bzip2(4000), 50 * MIB),
        "lzma-bomb": lambda: bomb(LZMA, zeros_in_lzma(80), 80 * MIB),
        "lzma-bomb-lies": lambda: bomb(LZMA, zeros_in_lzma(80), 1000),
        "lzma-dictionary": lambda: bomb(LZMA, zeros_in_lzma(1, 2**32 - 1), MIB),
        "lzma-properties": lambda: bomb(LZMA, b"\x09\x04\x05\x00\xff\x00\x00\x10\x00garbage", MIB),
        "lzma-empty": lambda: bomb(LZMA, b"\x09", MIB),
        "stored-lies-more": lambda: archive(Entry(size=2**31)),
        "stored-lies-less": lambda: archive(Entry(data=b"x" * 5000, size=10)),
        "packed-size-lies": lambda: archive(Entry(packed_size=2**31)),
        "many-small-bombs": lambda: many(100, zeros_deflated(1), DEFLATE, MIB),
        "too-many-entries": lambda: many(20_001),
        "long-directory": lambda: archive(*(Entry(b"%0900d" % index, b"") for index in range(5000))),
        "count-lies": lambda: archive(Entry(), count=65535),
        "zip64-entries": lambda: zip64(2**60, 46),
        "zip64-bytes": lambda: zip64(1, 2**62),
        "overlap-same": lambda: overlapping(1000),
        "overlap-inside": full_overlap,
        "overlap-directory": lambda: archive(Entry(packed_size=40, size=40)),
        "offset-outside": lambda: archive(Entry(offset=2**31)),
        "two-names": lambda: archive(Entry(b"model.onnx", local_name=b"other.onnx")),
        "twice": lambda: named(b"model.onnx", b"model.onnx"),
        "twice-by-dot": lambda: named(b"model.onnx", b"./model.onnx"),
        "twice-by-slash": lambda: named(b"a/model.onnx", b"a//model.onnx"),
        "file-and-folder": lambda: named(b"a", b"a/model.onnx"),
        "folder-called-model": lambda: named(b"x.onnx/weights.bin"),
        "empty-folder-called-model": lambda: archive(Entry(b"x.onnx/", b"", mode=FOLDER)),
        "link": lambda: archive(Entry(data=b"/etc/passwd", mode=LINK)),
        "fifo": lambda: archive(Entry(mode=FIFO)),
        "device": lambda: archive(Entry(mode=DEVICE)),
        "encrypted": lambda: archive(Entry(flags=0x801)),
        "method-zstd": lambda: archive(Entry(method=ZSTD)),
        "method-deflate64": lambda: archive(Entry(method=DEFLATE64)),
        "method-unknown": lambda: archive(Entry(method=999)),
        "checksum": lambda: archive(Entry(checksum=1)),
        "deflate-garbage": lambda: archive(Entry(data=b"\xff" * 100, method=DEFLATE, size=100)),
        "bzip2-garbage": lambda: archive(Entry(data=b"BZh9garbage", method=BZIP2, size=100)),
        "extra-field-broken": lambda: archive(Entry(size=2**32 - 1), extra=b"\x01\x00\xff\xff"),
        "no-entries": lambda: archive(),
        "no-model": lambda: named(b"weights.bin"),
        "two-models": lambda: named(b"a.onnx", b"b.onnx"),
        "magic-only": lambda: b"PK\3\4",
        "end-in-comment": lambda: archive(Entry(), comment=b"PK\5\6" + b"\xff" * 18),
        "zip-in-zip": lambda: archive(Entry(b"model.zip", nested(3))),
    }
    for name, content in cases.items():
        yield Upload(f"zip-{name}", "model", content)
    for size in TRUNCATED_AT:
        yield Upload(f"zip-cut-at-{size}", "model", lambda size=size: named(b"model.onnx", b"w.bin")[:size])  # type: ignore[misc]  # as above
    yield Upload("zip-nested-models", "model", lambda: nested(10), ANY)
    yield Upload("zip-case-clash", "model", lambda: named(b"model.onnx", b"Weights", b"weights"), ANY)
    yield Upload("zip-reserved-names", "model", lambda: named(b"model.onnx", b"CON", b"aux.txt", b"desktop.ini"), ANY)
    yield Upload("zip-normal-forms", "model", lambda: named(b"model.onnx", "\u00e9".encode(), "e\u0301".encode()), ANY)
    yield Upload("zip-prefix", "model", lambda: b"PK\3\4" + archive(Entry(), prefix=b"#!/bin/sh\n"), ANY)


def sound_zip(*members: tuple[str, bytes]) -> bytes:
    return archive(*(Entry(name.encode(), data) for name, data in members))
