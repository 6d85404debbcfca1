from __future__ import annotations

from engine_builder.reporting.decision.compared_engines import as_timed_last, compared_engines
from engine_builder.timing import RelativeLatency
from tests.engine_builder.report_body import BODY, failed
from tests.engine_builder.reporting.decision.decided_bodies import decided, tried, verdict


def test_a_finalist_counts_with_its_last_timing_and_its_verdict_wherever_it_is_told() -> None:
    body = decided([tried(1, 0.7, 0.42), tried(2, 0.6, 0.99)], {"f1": verdict(0.3)}, "f1", {"f1": RelativeLatency(0.72, 0.004)})
    fast, chosen = compared_engines(body)
    assert (fast.ratio, fast.over, fast.verdict) == (0.6, 0.99, None)
    assert (chosen.ratio, chosen.spread, chosen.over) == (0.72, 0.004, 0.3)
    shown = {trial.fingerprint: trial.latency.ratio for trial in as_timed_last(body) if trial.latency is not None}
    assert shown == {"f0": 1.0, "f1": 0.72, "f2": 0.6}


def test_the_baseline_and_failures_are_no_engines_to_compare() -> None:
    body = decided([tried(1, 0.7, 0.42), failed(2)], {"f1": verdict(0.3)}, "f1")
    assert [one.trial.index for one in compared_engines(body)] == [1]


def test_a_trial_without_a_probability_counts_by_its_samples() -> None:
    assert [(one.trial.index, one.over) for one in compared_engines(BODY)] == [(1, 1.0), (2, 0.2)]  # the second was judged
