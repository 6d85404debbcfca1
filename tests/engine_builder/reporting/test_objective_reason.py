from __future__ import annotations

from dataclasses import replace

from calibration.codec import value_from_json
from engine_builder.config.objective import Objective
from engine_builder.reporting.body.job_result import reported_objective
from engine_builder.reporting.objective_reason import objective_reason
from engine_builder.stage_io.engines import VerdictResult
from tests.engine_builder.report_body import OFFERS
from tests.engine_builder.report_desk import KEPT, improved, trials_of, verdict

TRIALS = trials_of(0, 4, 2)
BASELINE = value_from_json(VerdictResult, KEPT)
CHOSEN = value_from_json(VerdictResult, improved(TRIALS[2], verdict(0)))  # 0.8 of the baseline's 10 ms


def said(objective: Objective, judged: VerdictResult, *, offered: bool = True, is_predicted: bool = False) -> str:
    found = reported_objective(objective, judged)
    return objective_reason(found, TRIALS, judged, OFFERS.engines if offered else (), is_predicted=is_predicted)


def test_an_engine_is_the_most_accurate_of_those_that_are_fast_enough() -> None:
    words = "The most accurate engine that is at least 1.2x as fast as the baseline, of 2 low-precision engines tried."
    assert said(Objective(min_speedup=1.2), CHOSEN) == words
    assert said(Objective(max_latency_ms=8.0), CHOSEN).startswith("The most accurate engine that takes at most 8 ms a call, of 2")


def test_where_nothing_is_fast_enough_the_fastest_is_named() -> None:
    words = "the fastest of 2 low-precision engines tried is 1.43x, inside 99.5%, and is offered."
    assert said(Objective(min_speedup=5.0), BASELINE) == f"No engine is at least 5x as fast as the baseline: {words}"
    assert "is 1.43x predicted, inside 99.5%" in said(Objective(max_latency_ms=1.0), BASELINE, is_predicted=True)


def test_where_nothing_is_faster_at_all_that_is_said() -> None:
    words = "No engine takes at most 1 ms a call: of 2 low-precision engines tried, none is faster than the baseline."
    assert said(Objective(max_latency_ms=1.0), BASELINE, offered=False) == words


def test_a_baseline_that_is_fast_enough_is_the_answer() -> None:
    assert said(Objective(max_latency_ms=12.0), BASELINE) == ("The baseline itself is fast enough, 10 ms a call: nothing is more accurate.")


def test_an_objective_is_reached_by_what_is_kept() -> None:
    by_ratio, by_time = Objective(min_speedup=1.25), Objective(max_latency_ms=8.0)
    assert [reported_objective(objective, CHOSEN).is_reached for objective in (by_ratio, by_time)] == [True, True]
    assert [reported_objective(objective, BASELINE).is_reached for objective in (by_ratio, by_time)] == [False, False]
    assert not reported_objective(by_ratio, replace(CHOSEN, ratio=0.81)).is_reached
