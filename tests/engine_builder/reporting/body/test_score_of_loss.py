from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.codec import json_from_value, value_from_json
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.score_of_loss import LEAST, MOST, MOST_LOSS, ScoreOfLoss, score_of_loss
from tests.engine_builder.report_body import failed, trial


def lost(index: int, loss: float, drop: float, *, low_layers: int = 2, flips: float = 0.1, slack: float | None = None) -> Trial:
    found = trial(index, low_layers, 0.7, 0.0)
    assert found.on_all is not None
    accuracy = replace(found.on_all, score=0.9 - drop, excess=0.0025 - drop, flips=flips, likely_slack=slack)
    return replace(found, loss=loss, on_all=accuracy)


def law_of(exponent: float, losses: Sequence[float]) -> ScoreOfLoss | None:
    return score_of_loss([lost(index, loss, 0.5 * loss**exponent) for index, loss in enumerate(losses)])


@pytest.mark.parametrize("exponent", [0.5, 0.75, 1.0])
def test_engines_that_follow_a_law_give_it_back(exponent: float) -> None:
    law = law_of(exponent, [10.0**-power for power in range(1, 9)])
    assert law is not None
    assert law.exponent == pytest.approx(exponent, abs=0.02)  # the prior draws eight decades by a little
    found = law.estimate(1e-4)
    assert found is not None
    assert found.drop == pytest.approx(0.5 * 1e-4**exponent, rel=0.05)
    assert found.low < found.drop < found.high


def test_two_engines_close_together_say_little_of_the_exponent() -> None:
    law = law_of(2.0, [1e-3, 1.1e-3])
    assert law is not None
    assert law.exponent == pytest.approx(0.75, abs=0.05)


def test_what_is_far_from_what_was_measured_is_less_certain() -> None:
    law = law_of(0.75, [1e-3, 2e-3])
    assert law is not None
    near, far = law.estimate(1.5e-3), law.estimate(1e-7)
    assert near is not None
    assert far is not None
    assert near.high / near.drop < far.high / far.drop
    uncertain = law.estimate(1.5e-3, 1e-3)
    assert uncertain is not None
    assert near.high < uncertain.high


@given(loss=st.floats(1e-9, 1.0), exponent=st.floats(LEAST, MOST))
def test_the_loss_of_a_drop_is_its_inverse(loss: float, exponent: float) -> None:
    law = ScoreOfLoss(1e-3, 0.01, exponent, 0.05, 0.2, 5)
    found = law.estimate(loss)
    assert found is not None
    assert law.loss_of(found.drop) == pytest.approx(loss, rel=1e-9)  # two powers, each to the last digits


def test_what_lost_nothing_has_no_estimate() -> None:
    law = ScoreOfLoss(1e-3, 0.01, 0.75, 0.05, 0.2, 5)
    assert [law.estimate(loss) for loss in (0.0, -1e-9, math.inf, math.nan)] == [None] * 4


def test_only_engines_that_lost_something_that_can_be_told_count() -> None:
    told = [lost(1, 1e-3, 0.01), lost(2, 1e-2, 0.05)]
    others = [
        failed(3),
        lost(4, 1e-3, -0.001),  # better than the float model
        lost(5, 1e-6, 1e-9, flips=0.0),  # no decision changed
        lost(6, 1e-3, 0.3, low_layers=0),  # the baseline
        lost(7, 2.0 * MOST_LOSS, 0.9),  # noise
        replace(lost(8, 1.0, 0.1), loss=None),
        replace(lost(9, 1.0, 0.1), on_all=None),
    ]
    assert score_of_loss([*told, *others]) == score_of_loss(told)
    assert score_of_loss(told[:1] + others) is None


def test_a_drop_that_is_known_better_than_counted_counts_so() -> None:
    counted = [lost(1, 1e-3, 0.0, slack=0.0025 - 0.01), lost(2, 1e-2, 0.05)]
    assert score_of_loss(counted) == score_of_loss([lost(1, 1e-3, 0.01), lost(2, 1e-2, 0.05)])


def test_an_error_rises_where_a_score_drops() -> None:
    risen = [lost(1, 1e-3, -0.01), lost(2, 1e-2, -0.05)]
    assert score_of_loss(risen) is None
    assert score_of_loss(risen, is_lower_better=True) is not None


def test_the_law_survives_json() -> None:
    law = ScoreOfLoss(1e-3, 0.01, 0.75, 0.05, 0.2, 5)
    assert value_from_json(ScoreOfLoss, json_from_value(law)) == law
