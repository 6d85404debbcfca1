from __future__ import annotations

import pytest

from engine_builder.search.times.layouts import Step
from engine_builder.search.times.step_times import FIRST_GUESS_NS, StepTimes

SEEN = StepTimes({Step.UNBLOCK: ((1_000, 0.001), (100_000, 0.02))})  # 1 and 0.2 ns an element


def test_a_size_that_was_seen_takes_what_it_took() -> None:
    assert SEEN.milliseconds(Step.UNBLOCK, 1_000) == pytest.approx(0.001)
    assert SEEN.milliseconds(Step.UNBLOCK, 100_000) == pytest.approx(0.02)


def test_between_two_sizes_the_time_of_an_element_is_between_theirs() -> None:
    assert SEEN.milliseconds(Step.UNBLOCK, 10_000) / 10_000 == pytest.approx((1e-6 + 2e-7) / 2)  # halfway by the logarithm


def test_beyond_what_was_seen_an_element_more_takes_no_more_than_the_first_guess() -> None:
    assert SEEN.milliseconds(Step.UNBLOCK, 1_000_000) == pytest.approx(0.2)  # 0.2 ns each, as at the largest size
    small = StepTimes({Step.UNBLOCK: ((10, 0.01),)})  # 1000 ns each: the start of a kernel
    assert small.milliseconds(Step.UNBLOCK, 1_000_010) == pytest.approx(0.01 + FIRST_GUESS_NS)


def test_a_kind_that_was_never_seen_is_guessed_and_nothing_takes_no_time() -> None:
    assert SEEN.milliseconds(Step.QUANTIZE, 1_000_000) == pytest.approx(FIRST_GUESS_NS)
    assert SEEN.milliseconds(Step.UNBLOCK, 0) == 0.0
