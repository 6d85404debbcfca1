"""The forms of a tensor in a runtime with layouts, and the steps between them.

The forms lie on a line, and each step goes from one to the next:

    blocked floats  <->  floats  <->  integers  <->  integers, channels last
    (convolutions)                                   (integer convolutions)

A tensor that is written in one form and read in others takes the steps from the written form to the farthest that is read, on either side;
those on the way come with it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection


class Layout(enum.IntEnum):
    """Where a form is on the line."""

    BLOCKED_FLOATS = 0
    FLOATS = 1
    INTEGERS = 2
    INTEGERS_CHANNELS_LAST = 3


class Step(enum.StrEnum):
    """A conversion."""

    BLOCK = "block"  # floats into the blocked layout
    UNBLOCK = "unblock"
    QUANTIZE = "quantize"
    DEQUANTIZE = "dequantize"
    TRANSPOSE = "transpose"  # integers to channels last, or back


_UP = (Step.UNBLOCK, Step.QUANTIZE, Step.TRANSPOSE)  # from each form to the next
_DOWN = (Step.BLOCK, Step.DEQUANTIZE, Step.TRANSPOSE)  # from the next form to each


def steps(written: Layout, read: Collection[Layout]) -> tuple[Step, ...]:
    """Return the conversions of a tensor.

    Args:
        written: The form in which it is written.
        read: The forms in which it is read.
    """
    farthest, nearest = max((written, *read)), min((written, *read))
    return (*_UP[written:farthest], *_DOWN[nearest:written])
