from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calibration.process.array_blocks import block_slices


@given(count=st.integers(0, 200), each=st.integers(0, 50), most=st.integers(1, 1000))
def test_blocks_cover_every_place_once_and_none_has_more_bytes_than_it_may(count: int, each: int, most: int) -> None:
    parts = list(block_slices(count, count * each, most_bytes=most))

    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(count))
    assert all((part.stop - part.start) * each <= most or part.stop - part.start == 1 for part in parts)


def test_a_small_array_is_one_block() -> None:
    assert list(block_slices(64, 64 * 4)) == [slice(0, 64)]
