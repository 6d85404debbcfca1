from __future__ import annotations

import dataclasses

import pytest

from calibration.accuracy.verdict import Answer
from engine_builder.search.shipping_rule import is_accurate_enough, is_worth_it
from engine_builder.timing import RelativeLatency
from tests.engine_builder.report_desk import verdict


@pytest.mark.parametrize(
    ("answer", "by_default", "with_confidence"),
    [(Answer.MET, True, True), (Answer.MET_ON_SAMPLE, True, False), (Answer.NOT_MET, False, False)],
)
def test_a_confidence_demands_a_budget_that_is_met_for_sure(answer: Answer, by_default: bool, with_confidence: bool) -> None:
    judged = dataclasses.replace(verdict(0), answer=answer)
    assert is_accurate_enough(judged, None) is by_default
    assert is_accurate_enough(judged, 0.95) is with_confidence


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


def test_a_gain_within_the_error_of_the_targets_latencies_is_none() -> None:
    assert not is_worth_it(RelativeLatency(0.9, 0.0), are_outputs_equal=True, least_gain=0.2)
    assert is_worth_it(RelativeLatency(0.7, 0.0), are_outputs_equal=False, least_gain=0.2)
