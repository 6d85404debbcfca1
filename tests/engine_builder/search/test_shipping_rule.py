from __future__ import annotations

import pytest

from calibration.accuracy.intervals import PairedTable
from engine_builder.search.shipping_rule import is_likely_inside, is_surely_inside, is_worth_it, surely_inside_in_order
from engine_builder.timing import RelativeLatency


def test_an_engine_as_likely_over_as_inside_does_not_ship() -> None:
    assert is_likely_inside(0.499)
    assert not is_likely_inside(0.5)


def test_a_confidence_asks_both_the_counts_and_the_margins() -> None:
    unchanged = PairedTable(both=400, lost=0, gained=0, wrong=0)
    assert is_surely_inside(unchanged, 0.99, 0.95, can_gain=False, probability_over_budget=0.05)
    assert not is_surely_inside(unchanged, 0.99, 0.95, can_gain=False, probability_over_budget=0.06)
    few = PairedTable(both=298, lost=0, gained=0, wrong=0)  # 0.99^298 = 0.0500..., 0.99^299 = 0.0495
    assert not is_surely_inside(few, 0.99, 0.95, can_gain=False, probability_over_budget=0.0)


def test_choosing_among_engines_asks_for_more_samples() -> None:
    table = PairedTable(both=400, lost=0, gained=0, wrong=0)  # 0.99^400 = 0.018: below 0.05, above 0.05 / 5
    assert is_surely_inside(table, 0.99, 0.95, can_gain=False, probability_over_budget=0.0)
    assert not is_surely_inside(table, 0.99, 0.95, can_gain=False, probability_over_budget=0.0, chosen_from=5)


def test_judging_in_an_order_ends_with_the_first_engine_that_fails() -> None:
    good, bad = PairedTable(both=400, lost=0, gained=0, wrong=0), PairedTable(both=390, lost=10, gained=0, wrong=0)

    def passing(tables: list[PairedTable], probabilities: list[float]) -> int:
        return surely_inside_in_order(tables, 0.99, 0.95, can_gain=False, probabilities_over_budget=probabilities)

    assert passing([good, good, good], [0.0, 0.0, 0.0]) == 3  # each at the full level
    assert passing([good, bad, good], [0.0, 0.0, 0.0]) == 1
    assert passing([good, good, good], [0.0, 0.2, 0.0]) == 1
    assert passing([], []) == 0


@pytest.mark.parametrize(
    ("ratio", "mad", "equal", "worth"),
    [
        (0.96, 0.0, False, True),
        (0.971, 0.0, False, False),
        (0.96, 0.011, False, False),  # 4% less a spread of 1.1%
        (0.92, 0.03, False, False),  # not above three spreads
        (0.98, 0.005, True, True),
        (0.98, 0.007, True, False),
        (0.995, 0.0, True, False),
        (1.2, 0.0, True, False),
    ],
)
def test_a_gain_must_be_worth_another_model(ratio: float, mad: float, equal: bool, worth: bool) -> None:
    assert is_worth_it(RelativeLatency(ratio, mad), are_outputs_equal=equal) is worth
