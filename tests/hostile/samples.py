"""Files of samples whose headers lie, that hold pickles, or that expand without end."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator

import numpy as np

from tests.hostile.upload import Ends, Upload
from tests.hostile.zips import DEFLATE, Entry, archive, zeros_deflated, zeros_in_bzip2, zeros_in_lzma

MIB = 2**20


class Exploit:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("a pickle was loaded",))


def npy(array: object, *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=pickled)
    return file.getvalue()


def npy_with(header: str, data: bytes = bytes(4096), version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    length = struct.pack("<H", len(text)) if version == 1 else struct.pack("<L", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + length + text + data


def described(shape: str, descr: str = "'<f4'", fortran: str = "False") -> bytes:
    return npy_with(f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}")


def npz(**arrays: bytes) -> bytes:
    return archive(*(Entry(f"{name}.npy".encode(), data) for name, data in arrays.items()))


def of_library(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        packed.writestr("x.npy", npy(np.zeros((64, 1, 8, 8), np.float32)))
    return file.getvalue()


def bomb(packed: bytes, method: int, size: int) -> bytes:
    return archive(Entry(b"x.npy", packed, method, size, 0))


SOUND = np.zeros((64, 1, 8, 8), np.float32)


def samples() -> Iterator[Upload]:
    cases = {
        "empty": lambda: b"",
        "text": lambda: b"1,2,3\n4,5,6\n",
        "html": lambda: b"<html><script>alert(1)</script></html>",
        "pickle": lambda: pickle.dumps(Exploit()),
        "npy-pickle": lambda: npy(np.array([Exploit()], object), pickled=True),
        "npz-pickle": lambda: npz(x=npy(np.array([Exploit()] * 64, object), pickled=True)),
        "shape-lies": lambda: npz(x=described("(64, 1, 800, 800)")),
        "shape-huge": lambda: npz(x=described("(1099511627776, 1, 8, 8)")),
        "shape-overflows": lambda: npz(x=described("(4294967296, 4294967296, 4294967296)")),
        "shape-negative": lambda: npz(x=described("(-1, 1, 8, 8)")),
        "shape-no-tuple": lambda: npz(x=described("64")),
        "shape-long": lambda: npz(x=described("(" + "1, " * 500 + ")")),
        "shape-bool": lambda: npz(x=described("(True, 1, 8, 8)")),
        "header-calls": lambda: npz(x=npy_with("__import__('os').system('true')")),
        "header-nested": lambda: npz(x=npy_with("(" * 9000)),
        "header-nested-long": lambda: npz(x=npy_with("[" * 60000)),
        "header-long": lambda: npz(x=npy_with("{'descr': '<f4'," + " " * 5 * MIB + "}", version=2)),
        "header-digits": lambda: npz(x=described("(" + "9" * 5000 + ",)")),
        "header-no-keys": lambda: npz(x=npy_with("{}")),
        "header-cut": lambda: npz(x=b"\x93NUMPY\x01\x00\xff\xff{'descr'"),
        "version-unknown": lambda: npz(x=npy_with("{}", version=9)),
        "structured": lambda: npz(x=npy(np.zeros(64, [("a", "<f4"), ("b", "<i8")]))),
        "structured-nested": lambda: npz(x=described("(64,)", "[('a', [('b', [('c', '<f4')])])]")),
        "dtype-void": lambda: npz(x=npy(np.zeros(64, "V16"))),
        "dtype-text": lambda: npz(x=npy(np.array(["a" * 100] * 64))),
        "dtype-date": lambda: npz(x=npy(np.zeros(64, "datetime64[s]"))),
        "dtype-huge": lambda: npz(x=described("(64,)", "'|S2147483647'")),
        "dtype-unknown": lambda: npz(x=described("(64,)", "'<q99'")),
        "complex": lambda: npz(x=npy(SOUND.astype(np.complex64))),
        "no-samples": lambda: npz(x=npy(SOUND[:0])),
        "no-axes": lambda: npz(x=npy(np.float32(1))),
        "another-name": lambda: npz(**{"../../x": npy(SOUND)}),
        "long-name": lambda: npz(**{"n" * 60000: npy(SOUND)}),
        "control-characters": lambda: npz(**{"\x1b[2Jx\nINFO forged": npy(SOUND)}),
        "twice": lambda: archive(Entry(b"x.npy", npy(SOUND)), Entry(b"x.npy", npy(SOUND))),
        "many-arrays": lambda: archive(*(Entry(b"%d.npy" % index, b"") for index in range(10_001))),
        "no-array": lambda: archive(Entry(b"x.npy", b"no array")),
        "no-member": lambda: archive(),
        "member-without-suffix": lambda: archive(Entry(b"x", npy(SOUND))),
        "bzip2": lambda: of_library(zipfile.ZIP_BZIP2),
        "lzma": lambda: of_library(zipfile.ZIP_LZMA),
        "bzip2-bomb": lambda: bomb(zeros_in_bzip2(4000), 12, 1000 * MIB),
        "lzma-bomb": lambda: bomb(zeros_in_lzma(80), 14, 80 * MIB),
        "deflate-bomb": lambda: bomb(zeros_deflated(3000), DEFLATE, 3000 * MIB),
        "deflate-bomb-lies": lambda: bomb(zeros_deflated(3000), DEFLATE, 5000),
        "size-lies": lambda: archive(Entry(b"x.npy", npy(SOUND), size=2**31)),
        "encrypted": lambda: archive(Entry(b"x.npy", npy(SOUND), flags=0x801)),
        "cut": lambda: npz(x=npy(SOUND))[:5000],
        "cut-at-end": lambda: npz(x=npy(SOUND))[:-30],
        "checksum": lambda: archive(Entry(b"x.npy", npy(SOUND), checksum=1)),
    }
    for name, content in cases.items():
        yield Upload(f"samples-{name}", "calibration", content, Ends.FAILS)
    yield Upload("samples-all-nan", "calibration", lambda: npz(x=npy(np.full_like(SOUND, np.nan))), Ends.HARMLESS)
    yield Upload("samples-fortran", "calibration", lambda: npz(x=npy(np.asfortranarray(SOUND))), Ends.HARMLESS)
    yield Upload("samples-big-endian", "calibration", lambda: npz(x=npy(SOUND.astype(">f4"))), Ends.HARMLESS)
