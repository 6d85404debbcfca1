"""What a .zip says of its table of contents, whatever bytes it is."""

from __future__ import annotations

import contextlib
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.data.zip_directory import zip_directory_size


def zip_of(count: int, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = comment
        for index in range(count):
            archive.writestr(f"{index}", b"")
    return buffer.getvalue()


@pytest.mark.parametrize("comment", [b"", b"a comment", b"x" * 65535])
def test_entries_and_bytes_are_those_of_the_library(comment: bytes) -> None:
    data = zip_of(300, comment)
    count, size_bytes = zip_directory_size(io.BytesIO(data))
    assert count == 300
    assert size_bytes == len(data) - data.index(b"PK\x01\x02") - 22 - len(comment)


def test_more_entries_than_two_bytes_count_are_read_from_zip64() -> None:
    assert zip_directory_size(io.BytesIO(zip_of(70_000)))[0] == 70_000


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_other_bytes_are_refused_or_give_numbers(start: bytes, end: bytes) -> None:
    with contextlib.suppress(zipfile.BadZipFile):
        assert min(zip_directory_size(io.BytesIO(start + b"PK\x06\x07" + end + b"PK\x05\x06" + end))) >= 0
