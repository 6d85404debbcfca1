"""Every method gives back what went in, in pieces of at most a MiB, however it comes; damage is said and nothing is taken for it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.intake.decompression import PIECE_BYTES, BrokenStreamError, bunzipped, gunzipped, inflated, lzma_of_zip, unxzipped

Pack = Callable[[bytes], bytes]
Unpack = Callable[[Iterator[bytes]], Iterator[bytes]]


def deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def lzma_for_zip(data: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 2**20, "lc": 3, "lp": 0, "pb": 2}]
    return struct.pack("<BBHBL", 9, 4, 5, 93, 2**20) + lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


METHODS: list[tuple[Pack, Unpack]] = [
    (deflate, inflated),
    (gzip.compress, gunzipped),
    (bz2.compress, bunzipped),
    (lzma.compress, unxzipped),
    (lzma_for_zip, lzma_of_zip),
]
SEVERAL = METHODS[1:4]  # whose streams may follow each other
ids = lambda value: getattr(value, "__name__", None)  # noqa: E731  # what pytest calls a case by


def split(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize(("pack", "unpack"), METHODS, ids=ids)
@given(data=st.binary(max_size=3000), times=st.integers(1, 50), size=st.integers(1, 500))
def test_what_went_in_comes_out(pack: Pack, unpack: Unpack, data: bytes, times: int, size: int) -> None:
    assert b"".join(unpack(split(pack(data * times), size))) == data * times


@pytest.mark.parametrize(("pack", "unpack"), METHODS, ids=ids)
def test_no_step_gives_more_than_a_mebibyte(pack: Pack, unpack: Unpack) -> None:
    pieces = list(unpack(split(pack(bytes(5 * PIECE_BYTES + 7)), 2**16)))
    assert sum(map(len, pieces)) == 5 * PIECE_BYTES + 7
    assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize(("pack", "unpack"), SEVERAL, ids=ids)
def test_streams_one_behind_the_other_and_filling_are_read(pack: Pack, unpack: Unpack) -> None:
    assert b"".join(unpack(split(pack(b"one") + pack(b"two") + bytes(512), 7))) == b"onetwo"


@pytest.mark.parametrize(("pack", "unpack"), METHODS, ids=ids)
@given(damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), cut=st.integers(0, 10_000))
def test_damage_is_said(pack: Pack, unpack: Unpack, damage: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(pack(b"some words " * 200))
    for at, value in damage:
        data[at % len(data)] = value
    del data[cut:]
    try:
        pieces = list(unpack(split(bytes(data), 64)))
    except BrokenStreamError:
        return
    assert max(map(len, pieces), default=0) <= PIECE_BYTES


def test_dictionary_that_takes_gigabytes_is_refused() -> None:
    data = bytearray(lzma_for_zip(b"data"))
    data[5:9] = (2**32 - 1).to_bytes(4, "little")
    with pytest.raises(BrokenStreamError, match="a dictionary of 4294967295 bytes"):
        list(lzma_of_zip(iter([bytes(data)])))
