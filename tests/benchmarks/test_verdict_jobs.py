from __future__ import annotations

import numpy as np
import pytest

from benchmarks.verdict_jobs import RULES, Job, chance_over_budget, jobs
from benchmarks.verdict_populations import Population
from calibration.accuracy.intervals import PairedTable
from calibration.accuracy.margins.decision_margins import DecisionMargins


def population(*flips: float, size: int = 2000) -> Population:
    """Return engines that flip the least clear samples, up to these shares, and nothing else: what each is worth shows at once."""
    margins = np.arange(1, size + 1) / size
    engines = tuple(DecisionMargins(margins, np.where(margins <= share, -margins, margins), can_gain=False) for share in flips)
    return Population("p", "examples", np.linspace(0.9, 0.5, len(flips)), engines, (0.05,))


def only(*flips: float, n: int = 500) -> Job:
    return next(jobs(population(*flips), n, 1, np.random.default_rng(0)))


def test_every_rule_takes_the_fastest_engine_that_is_clearly_inside() -> None:
    job = only(0.0, 0.001, 0.5)
    assert {rule: choice.latency for rule, choice in job.choices.items()} == dict.fromkeys(RULES, 0.7)
    assert not any(choice.is_over for choice in job.choices.values())
    assert job.fastest_inside == 0.7


def test_every_rule_keeps_float_where_no_engine_is_inside() -> None:
    job = only(0.3, 0.4)
    assert {choice.latency for choice in job.choices.values()} == {1.0}
    assert job.fastest_inside == 1.0


def test_judging_in_an_order_stops_at_a_bad_engine_that_comes_first() -> None:
    job = only(0.3, 0.0)
    assert job.choices["margins, 95%"].latency == 1.0
    assert job.choices["margins, 95%, any"].latency == 0.5


def test_what_is_said_of_every_engine_comes_with_the_truth() -> None:
    job = only(0.0, 0.3)
    assert [is_over for _, _, is_over in job.said] == [False, True]
    assert all(by_count < 0.01 and by_margins < 0.01 for by_count, by_margins, _ in job.said[:1])
    assert all(by_count > 0.99 and by_margins > 0.99 for by_count, by_margins, _ in job.said[1:])


def test_estimates_come_with_the_true_drop() -> None:
    counted, expected, true = only(0.0, 0.3).drops[1]
    assert true == pytest.approx(0.3)
    assert counted == pytest.approx(0.3, abs=0.06)  # three standard errors of 500 samples
    assert expected == pytest.approx(0.3, abs=0.08)


def test_a_job_is_run_as_often_as_asked_for_each_budget() -> None:
    assert len(list(jobs(population(0.0), 50, 3, np.random.default_rng(0)))) == 3


def test_chance_over_budget_has_the_closed_form_where_gains_are_impossible() -> None:
    table = PairedTable(both=297, lost=3, gained=0, wrong=0)
    drawn = np.random.default_rng(0).beta(3.5, 297.5, size=200_000) > 0.02
    assert chance_over_budget(table, 0.98, np.random.default_rng(0), can_gain=False) == pytest.approx(drawn.mean(), abs=0.005)


def test_chance_over_budget_of_even_flips_is_a_half_and_falls_with_the_budget() -> None:
    table = PairedTable(both=980, lost=10, gained=10, wrong=0)
    chance = [chance_over_budget(table, ratio, np.random.default_rng(0)) for ratio in (1.0, 0.995, 0.98)]
    assert chance[0] == pytest.approx(0.5, abs=0.01)
    assert chance[0] > chance[1] > chance[2]
