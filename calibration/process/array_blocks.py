"""Cuts large arrays into blocks, for work whose copies of a whole array would be what a stage's memory is needed for."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK_BYTES = 4 << 20  # of a block, in the type of the array; copies in float64 are twice that


def block_slices(count: int, size_bytes: int, *, most_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Yield slices that cover one axis of an array in order, each of at most ``most_bytes``, or of one place.

    Args:
        count: Places of the axis.
        size_bytes: Of the whole array.
        most_bytes: Of a block.
    """
    each = max(count * most_bytes // max(size_bytes, 1), 1)
    for start in range(0, count, each):
        yield slice(start, min(start + each, count))
