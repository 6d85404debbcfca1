"""Archives of the kind .tar, plain and compressed, that lie, bomb, escape, or are cut."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator

from tests.hostile.upload import Ends, Upload

MIB = 2**20
BLOCK = 512


def header(name: bytes, size: int = 0, kind: bytes = b"0", link: bytes = b"", size_field: bytes | None = None) -> bytes:
    """Return one header, each of whose fields may lie."""
    block = bytearray(BLOCK)
    block[: len(name)] = name[:100]
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = b"%011o\0" % size if size_field is None else size_field
    block[136:148], block[156:157] = b"00000000000\0", kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def entry(name: bytes, data: bytes = b"data", kind: bytes = b"0", **fields: bytes) -> bytes:
    return header(name, len(data), kind, **fields) + data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    digits = len(str(length))
    while len(str(length + digits)) != digits:
        digits += 1
    return b"%d %s=%s\n" % (length + digits, key, value)


def pax(key: bytes, value: bytes, kind: bytes = b"x") -> bytes:
    return entry(b"pax", record(key, value), kind)


def tar(*parts: bytes) -> bytes:
    return b"".join(parts) + bytes(2 * BLOCK)


def with_model(*parts: bytes) -> bytes:
    return tar(*parts, entry(b"model.onnx", b"model"))


def zeros_gzipped(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(header(b"model.onnx", mebibytes * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + piece * mebibytes + packer.flush()


def zeros_in(pack: Callable[[bytes], bytes], mebibytes: int) -> bytes:
    return pack(header(b"model.onnx", mebibytes * MIB)) + pack(bytes(MIB)) * mebibytes


def headers_without_end(count: int) -> bytes:
    return gzip.compress(header(b"a/", 0, b"5") * count)


def with_global_comment(size_bytes: int) -> bytes:
    """Written by the library, as it would be by a stranger's tool."""
    buffer = io.BytesIO()
    comment = {"comment": "x" * size_bytes}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=comment) as packed:
        info = tarfile.TarInfo("model.onnx")
        info.size = 5
        packed.addfile(info, io.BytesIO(b"model"))
    return buffer.getvalue()


NAMES = {
    "absolute": b"/etc/model.onnx",
    "parent": b"../model.onnx",
    "deep-parent": b"a/../../model.onnx",
    "backslash": b"a\\model.onnx",
    "drive": b"C:/model.onnx",
    "line-end": b"model\n.onnx",
    "escape-sequence": b"\x1b[2Jm.onnx",
    "not-utf8": b"\xff\xfe.onnx",
    "deep": b"d/" * 40 + b"model.onnx",
}
KINDS = {
    "symbolic-link": b"2",
    "hard-link": b"1",
    "character-device": b"3",
    "block-device": b"4",
    "fifo": b"6",
    "sparse": b"S",
    "unknown": b"Z",
}


def tars() -> Iterator[Upload]:
    for name, path in NAMES.items():
        yield Upload(f"tar-name-{name}", "model", lambda path=path: tar(entry(path)))  # type: ignore[misc]  # a lambda with a default
    for name, kind in KINDS.items():
        yield Upload(f"tar-{name}", "model", lambda kind=kind: with_model(header(b"w", 0, kind, b"/etc/passwd")))  # type: ignore[misc]  # as above
    cases = {
        "global-of-3-mb": lambda: with_global_comment(2_700_000),
        "globals-many": lambda: with_model(*[pax(b"comment", b"x" * 8000, b"g")] * 300),
        "globals-many-keys": lambda: with_model(entry(b"g", b"".join(record(b"k%d" % i, b"v") for i in range(100_000)), b"g")),
        "global-path": lambda: with_model(pax(b"path", b"model.onnx", b"g"), entry(b"a"), entry(b"b")),
        "global-size": lambda: with_model(pax(b"size", b"99999999", b"g")),
        "pax-large": lambda: with_model(pax(b"comment", b"x" * 300_000)),
        "pax-chain": lambda: with_model(*[pax(b"comment", b"x")] * 10_000),
        "pax-path-parent": lambda: tar(pax(b"path", b"../../model.onnx"), entry(b"model.onnx")),
        "pax-path-deep": lambda: tar(pax(b"path", b"d/" * 4000 + b"model.onnx"), entry(b"model.onnx")),
        "pax-size-more": lambda: tar(pax(b"size", b"9" * 18), entry(b"model.onnx")),
        "pax-size-negative": lambda: tar(pax(b"size", b"-1"), entry(b"model.onnx")),
        "pax-size-words": lambda: tar(pax(b"size", b"many"), entry(b"model.onnx")),
        "pax-size-digits": lambda: tar(pax(b"size", b"9" * 5000), entry(b"model.onnx")),
        "pax-length-zero": lambda: tar(entry(b"pax", b"0 a=b\n", b"x"), entry(b"model.onnx")),
        "pax-length-more": lambda: tar(entry(b"pax", b"999 a=b\n", b"x"), entry(b"model.onnx")),
        "pax-no-length": lambda: tar(entry(b"pax", b"path=model\n", b"x"), entry(b"model.onnx")),
        "pax-sparse": lambda: tar(pax(b"GNU.sparse.size", b"1099511627776"), entry(b"model.onnx")),
        "long-name-of-mb": lambda: tar(entry(b"L", b"n" * MIB, b"L"), entry(b"model.onnx")),
        "long-name-chain": lambda: with_model(*[entry(b"L", b"n.onnx\0", b"L")] * 5000),
        "long-link": lambda: tar(entry(b"K", b"/etc/passwd\0", b"K"), header(b"model.onnx", 0, b"2")),
        "folder-with-content": lambda: with_model(header(b"d/", MIB, b"5") + bytes(MIB)),
        "size-negative": lambda: tar(header(b"model.onnx", size_field=b"\xff" * 12)),
        "size-base-256": lambda: tar(header(b"model.onnx", size_field=b"\x80" + b"\x7f" * 11)),
        "size-words": lambda: tar(header(b"model.onnx", size_field=b"many bytes..")),
        "size-more": lambda: tar(header(b"model.onnx", 2**32)),
        "checksum": lambda: tar(entry(b"model.onnx").replace(b"0000644", b"0000777", 1)),
        "twice": lambda: tar(entry(b"model.onnx"), entry(b"./model.onnx")),
        "file-and-folder": lambda: tar(entry(b"a"), entry(b"a/model.onnx")),
        "folder-called-model": lambda: tar(header(b"x.onnx/", 0, b"5"), entry(b"x.onnx/w.bin")),
        "too-many-entries": lambda: with_model(*(header(b"%d" % index) for index in range(20_001))),
        "too-many-folders": lambda: headers_without_end(60_000),
        "no-model": lambda: tar(entry(b"weights.bin")),
        "cut-in-data": lambda: tar(entry(b"model.onnx", b"m" * 5000))[:2000],
        "cut-in-header": lambda: tar(entry(b"a"), entry(b"model.onnx"))[:1300],
        "gzip-bomb": lambda: zeros_gzipped(4000),
        "bzip2-bomb": lambda: zeros_in(bz2.compress, 4000),
        "xz-bomb": lambda: zeros_in(lzma.compress, 4000),
        "gzip-in-gzip": lambda: gzip.compress(gzip.compress(with_model())),
        "gzip-cut": lambda: gzip.compress(with_model(), mtime=0)[:40],
        "gzip-garbage": lambda: b"\x1f\x8b\x08" + b"\xff" * 100,
        "xz-garbage": lambda: b"\xfd7zXZ\0" + b"\xff" * 100,
        "bzip2-garbage": lambda: b"BZh9" + b"\xff" * 100,
    }
    for name, content in cases.items():
        yield Upload(f"tar-{name}", "model", content)
    yield Upload("tar-gzip", "model", lambda: gzip.compress(with_model()), Ends.FAILS)
    yield Upload("tar-pax-harmless", "model", lambda: with_model(pax(b"mtime", b"1.5")), Ends.FAILS)
