from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.search.times.layouts import Layout, Step, steps

BLOCKED, FLOATS, INTEGERS, LAST = Layout


@pytest.mark.parametrize(
    ("written", "read", "expected"),
    [
        (BLOCKED, {BLOCKED}, ()),
        (BLOCKED, {LAST}, (Step.UNBLOCK, Step.QUANTIZE, Step.TRANSPOSE)),  # a float convolution before an integer one
        (LAST, {BLOCKED}, (Step.BLOCK, Step.DEQUANTIZE, Step.TRANSPOSE)),
        (FLOATS, {INTEGERS}, (Step.QUANTIZE,)),
        (INTEGERS, {FLOATS}, (Step.DEQUANTIZE,)),
        (BLOCKED, {BLOCKED, FLOATS, LAST}, (Step.UNBLOCK, Step.QUANTIZE, Step.TRANSPOSE)),  # the floats come with it
        (FLOATS, {BLOCKED, INTEGERS}, (Step.QUANTIZE, Step.BLOCK)),  # on both sides
        (FLOATS, set(), ()),
    ],
)
def test_a_tensor_takes_the_steps_to_the_farthest_form_on_either_side(
    written: Layout, read: set[Layout], expected: tuple[Step, ...]
) -> None:
    assert steps(written, read) == expected


@given(st.sampled_from(Layout), st.sets(st.sampled_from(Layout)), st.sampled_from(Layout))
def test_another_reader_never_saves_a_step(written: Layout, read: set[Layout], more: Layout) -> None:
    assert set(steps(written, read)) <= set(steps(written, read | {more}))


def test_there_and_back_are_as_many_steps() -> None:
    for one, other in itertools.product(Layout, repeat=2):
        assert len(steps(one, {other})) == len(steps(other, {one})) == abs(one - other)
