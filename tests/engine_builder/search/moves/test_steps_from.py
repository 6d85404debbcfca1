from __future__ import annotations

import math
from dataclasses import replace

import pytest

from engine_builder.records.trial import Accuracy, Trial
from engine_builder.search.moves.steps_from import LEAST_STEP, LOSS_ALLOWED, LOSS_HOPED, most_loss, steps_from
from tests.engine_builder.search.fake_world import FakeWorld

WORLD = FakeWorld((0.0001,) * 16, budget=0.00085)  # 8 of 16 layers fit


def trial(index: int, count: int) -> Trial:
    return WORLD.trial(index, WORLD.quantized(WORLD.layers[:count]), "loss")


def seen(one: Trial) -> Accuracy | None:
    return one.on_search


BASELINE, FIVE, EIGHT, NINE, ALL = (trial(index, count) for index, count in enumerate((0, 5, 8, 9, 16)))


def test_steps_start_from_the_fastest_inside_and_from_those_nearest_outside() -> None:
    found = steps_from([BASELINE, ALL, FIVE, EIGHT, NINE], seen)
    assert found.starts == (EIGHT.fingerprint, NINE.fingerprint, ALL.fingerprint)
    assert found.below == pytest.approx(WORLD.ratio(EIGHT.precisions) - LEAST_STEP)


def test_where_nothing_is_inside_steps_start_from_the_baseline_too() -> None:
    found = steps_from([BASELINE, ALL], seen)
    assert found.starts == (BASELINE.fingerprint, ALL.fingerprint)
    assert found.below == pytest.approx(1.0 - LEAST_STEP)
    assert found.most_loss == pytest.approx(LOSS_HOPED * (ALL.loss or 0.0))


def test_an_engine_outside_that_is_slower_is_no_start() -> None:
    assert NINE.latency is not None
    slow = replace(NINE, latency=replace(NINE.latency, ratio=0.95))
    assert steps_from([BASELINE, EIGHT, slow], seen).starts == (EIGHT.fingerprint,)


def test_what_failed_or_must_not_be_seen_is_no_start() -> None:
    assert steps_from([BASELINE, replace(EIGHT, latency=None)], seen).starts == (BASELINE.fingerprint,)
    assert steps_from([BASELINE, EIGHT], lambda one: None).starts == ()


def test_the_loss_that_is_tried_lies_between_what_was_inside_and_what_was_outside() -> None:
    assert most_loss(1.0, 1.21) == pytest.approx(math.sqrt(1.21))
    assert most_loss(1.0, 100.0) == LOSS_ALLOWED
    assert most_loss(1.0, 0.5) == 1.0  # losses do not decide alone
    assert most_loss(1.0, 0.0) == LOSS_ALLOWED
    assert most_loss(0.0, 4.0) == 4.0 * LOSS_HOPED
