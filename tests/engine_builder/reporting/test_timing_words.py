from __future__ import annotations

import pytest

from engine_builder.reporting.timing_words import busy_warning, speedup_spread
from engine_builder.timing import RelativeLatency


@pytest.mark.parametrize("waited", [None, 0.0, 0.05])
def test_an_idle_machine_is_no_warning(waited: float | None) -> None:
    assert busy_warning(waited) == ()


def test_a_busy_machine_is_a_warning_that_says_what_still_holds() -> None:
    (words,) = busy_warning(0.38)
    assert "waited 38% of the time for a processor" in words
    assert "milliseconds are of the wall clock" in words


def test_the_spread_of_a_speedup_is_that_of_the_ratio_turned_over() -> None:
    near, spread = 0.5001, speedup_spread(RelativeLatency(0.5, 0.0001))
    assert spread == pytest.approx(1.0 / 0.5 - 1.0 / near, rel=1e-3)
