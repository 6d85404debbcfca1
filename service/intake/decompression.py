"""Decompression that is bounded while it runs: no step gives more than a MiB, or takes memory that the data ask for.

A compressed stream may expand a thousandfold (deflate) or a millionfold (bzip2, LZMA). Whoever reads it counts, and stops when it is too
much; so each step has to be small, whatever the method.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

PIECE_BYTES = 2**20
MAX_DICTIONARY_BYTES = 64 * 2**20  # what LZMA keeps of the past; xz -9 takes as much
_XZ_MEMORY_BYTES = 2 * MAX_DICTIONARY_BYTES


class BrokenStreamError(ValueError):
    """The compressed data are damaged, or ask for what is not given."""


class _Steps(Protocol):
    """What ``bz2`` and ``lzma`` offer."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what a raw deflate stream holds (method 8 of .zip)."""
    return _zlib(pieces, -zlib.MAX_WBITS)


def gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what the members of a .gz hold."""
    return _zlib(pieces, 16 + zlib.MAX_WBITS)


def bunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what the streams of a .bz2 hold."""
    return _stepwise(pieces, bz2.BZ2Decompressor)


def unxzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what the streams of an .xz hold."""
    return _stepwise(pieces, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES))


def lzma_of_zip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what method 14 of .zip holds: a version, the length of the properties, the properties, and a raw LZMA stream."""
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= _LZMA_START_BYTES:
            break
    if len(start) < _LZMA_START_BYTES:
        raise BrokenStreamError("an LZMA stream without its properties")
    length, packed, dictionary = struct.unpack_from("<HBL", start, 2)
    lc, lp, pb = packed % 9, packed // 9 % 5, packed // 45
    if length != _LZMA_PROPERTIES_BYTES or pb > _MAX_PB:
        raise BrokenStreamError("an LZMA stream with unknown properties")
    if dictionary > MAX_DICTIONARY_BYTES:
        raise BrokenStreamError(f"an LZMA stream with a dictionary of {dictionary} bytes, expected at most {MAX_DICTIONARY_BYTES}")
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": lc, "lp": lp, "pb": pb}]

    def rest() -> Iterator[bytes]:
        yield start[_LZMA_START_BYTES:]
        yield from pieces

    return _stepwise(rest(), lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters))


def _zlib(pieces: Iterator[bytes], window: int) -> Iterator[bytes]:
    """Yield the content of the streams, one behind the other; zeros behind the last are filling."""
    stream = zlib.decompressobj(window)
    is_begun = False
    for piece in pieces:
        data = piece
        while data:
            if stream.eof:
                if not data.strip(b"\0"):
                    break
                stream = zlib.decompressobj(window)
            is_begun = True
            try:
                yield stream.decompress(data, PIECE_BYTES)
            except zlib.error as exc:
                raise BrokenStreamError(str(exc)) from exc
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
    while not stream.eof and (data := stream.decompress(b"", PIECE_BYTES)):
        yield data
    if is_begun and not stream.eof:
        raise BrokenStreamError("a compressed stream that ends early")


def _stepwise(pieces: Iterator[bytes], begin: Callable[[], _Steps]) -> Iterator[bytes]:
    """Yield the content of the streams, one behind the other; zeros behind the last are filling."""
    try:
        stream = begin()
        for piece in pieces:
            data = piece
            while True:
                if stream.eof:
                    if not data.strip(b"\0"):
                        break
                    stream = begin()
                yield stream.decompress(data, PIECE_BYTES)
                data = stream.unused_data if stream.eof else b""
                if not data and (stream.eof or stream.needs_input):
                    break
    except (OSError, ValueError, lzma.LZMAError, EOFError) as exc:
        raise BrokenStreamError(str(exc)) from exc


_LZMA_START_BYTES = 9
_LZMA_PROPERTIES_BYTES = 5
_MAX_PB = 4
