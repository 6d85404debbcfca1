from __future__ import annotations

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.search.time_model import FLOATS, form_of
from engine_builder.search.times.borders import Border, BorderTerm, Reader, border_term
from engine_builder.search.times.layouts import Layout, Step
from engine_builder.search.times.step_times import StepTimes

LOW = form_of(Precision.INT8)
COST = {Step.BLOCK: 1.0, Step.UNBLOCK: 2.0, Step.QUANTIZE: 4.0, Step.DEQUANTIZE: 8.0, Step.TRANSPOSE: 16.0}
CONVOLUTIONS = Border(
    "a", Layout.BLOCKED_FLOATS, Layout.INTEGERS_CHANNELS_LAST, (Reader("b", Layout.BLOCKED_FLOATS, Layout.INTEGERS_CHANNELS_LAST),), (), 10
)
# a is read by the next convolution and by a sum, which takes any form that its element type has
RESIDUAL = Border(
    "a",
    Layout.BLOCKED_FLOATS,
    Layout.INTEGERS_CHANNELS_LAST,
    (Reader("b", Layout.BLOCKED_FLOATS, Layout.INTEGERS_CHANNELS_LAST), Reader("add", None, None)),
    (),
    10,
)
# what reads the features of a convolution as plain floats in the baseline, too
HEAD = Border("a", Layout.BLOCKED_FLOATS, Layout.INTEGERS_CHANNELS_LAST, (), (Layout.FLOATS,), 10)


@pytest.mark.parametrize(
    ("border", "forms", "expected"),
    [
        (CONVOLUTIONS, (FLOATS, FLOATS), 0.0),
        (CONVOLUTIONS, (LOW, LOW), 0.0),
        (CONVOLUTIONS, (FLOATS, LOW), 2.0 + 4.0 + 16.0),
        (CONVOLUTIONS, (LOW, FLOATS), 16.0 + 8.0 + 1.0),
        (RESIDUAL, (LOW, LOW, LOW), 0.0),
        (RESIDUAL, (FLOATS, FLOATS, LOW), 2.0 + 4.0),  # no transpose: a sum of integers takes them as they are
        (RESIDUAL, (LOW, LOW, FLOATS), 16.0 + 8.0),  # and no reorder: a float sum takes floats as they are
        (RESIDUAL, (LOW, FLOATS, FLOATS), 16.0 + 8.0 + 1.0),  # converted once for both
        (HEAD, (FLOATS,), 0.0),
        (HEAD, (LOW,), 16.0 + 8.0 - 2.0),  # the baseline's own reorder is saved
    ],
)
def test_a_border_costs_what_is_converted_beyond_the_baseline(border: Border, forms: tuple[int, ...], expected: float) -> None:
    assert BorderTerm(border, COST).milliseconds(forms) == expected


def test_what_is_converted_is_told_by_kind() -> None:
    found = BorderTerm(HEAD, COST).by_step((LOW,))
    assert found == {Step.BLOCK: 0.0, Step.UNBLOCK: -2.0, Step.QUANTIZE: 0.0, Step.DEQUANTIZE: 8.0, Step.TRANSPOSE: 16.0}


def test_kinds_are_scaled_by_their_names() -> None:
    doubled = BorderTerm(CONVOLUTIONS, COST).scaled({step.value: 2.0 if step is Step.UNBLOCK else 0.0 for step in Step})
    assert doubled.milliseconds((FLOATS, LOW)) == 4.0


def test_a_term_has_the_times_of_its_tensors_size() -> None:
    times = StepTimes({Step.QUANTIZE: ((10, 0.5),)})
    assert border_term(CONVOLUTIONS, times).step_ms[Step.QUANTIZE] == pytest.approx(0.5)
