from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.accuracy.verdict import Answer
from engine_builder.backends.base import Source
from engine_builder.reporting.body.job_result import PredictedSpeedup, reported_verdict
from engine_builder.reporting.decision.headline import headline, neighbours_in_words
from engine_builder.timing import RelativeLatency
from tests.engine_builder.report_body import BODY, KEPT_BASELINE, RESULT
from tests.engine_builder.reporting.decision.decided_bodies import decided, tried, verdict


@pytest.mark.parametrize(
    ("over", "answer", "words"),
    [
        (0.001, Answer.MET, "keeps the accuracy budget, with 95% confidence."),
        (0.02, Answer.MET_ON_SAMPLE, "likely keeps the accuracy budget: probability 0.98. 400 samples cannot make it certain."),
        (0.42, Answer.MET_ON_SAMPLE, "more likely keeps the accuracy budget than not: inside with probability 0.58, over it with 0.42."),
        (0.7, Answer.NOT_MET, "is more likely over the accuracy budget than inside: inside with probability 0.30."),
    ],
)
def test_the_headline_says_no_more_than_the_verdict(over: float, answer: Answer, words: str) -> None:
    result = replace(RESULT, verdict=reported_verdict(verdict(over, answer)), speedup=1.4767, speedup_spread=0.0027)
    assert headline(result) == f"An engine 1.48x as fast (± 0.003) {words}"


def test_a_predicted_speedup_is_called_so() -> None:
    result = replace(RESULT, latency_source=Source.PREDICTED, speedup=None, predicted_speedup=PredictedSpeedup(1.25, (1.1, 1.5)))
    assert headline(result).startswith("An engine 1.25x as fast (predicted) ")


def test_a_kept_baseline_has_no_neighbours() -> None:
    assert headline(KEPT_BASELINE.result) == "The baseline is kept."
    assert neighbours_in_words(KEPT_BASELINE) == []


RISKY, SAFE, FAST = tried(1, 0.7, 0.42), tried(2, 0.707, 0.001), tried(3, 0.6, 0.99)


def test_a_finalist_that_is_met_for_a_little_more_time_is_mentioned() -> None:
    body = decided([RISKY, SAFE, FAST], {"f1": verdict(0.42), "f2": verdict(0.001, Answer.MET)}, "f1")
    safer, faster = neighbours_in_words(body)
    assert safer == ("Safer", "trial 2, 1.41x ± 0.004, takes 1.0% more time and keeps the budget with 95% confidence.")
    assert faster[0] == "Faster"
    assert faster[1].startswith("trial 3, 1.67x, takes 14% less time; top1 0.8875, is inside the budget with probability 0.01")


def test_a_safer_engine_that_was_no_finalist_is_told_with_its_probability() -> None:
    safer, _ = neighbours_in_words(decided([RISKY, tried(4, 0.8, 0.1)], {"f1": verdict(0.42)}, "f1"))
    assert safer[1] == "trial 4, 1.25x, takes 14% more time and is inside the budget with probability 0.90."


def test_an_engine_that_is_safer_by_little_is_no_neighbour() -> None:
    safer, faster = neighbours_in_words(decided([RISKY, tried(4, 0.8, 0.3)], {"f1": verdict(0.42)}, "f1"))
    assert safer[1] == "no other engine that was tried is much safer; the baseline loses nothing, at 1x."
    assert faster[1] == "no engine that was tried is faster beyond the spread of the timing."


def test_an_engine_that_is_met_needs_no_safer_one() -> None:
    body = decided([RISKY, SAFE], {"f2": verdict(0.001, Answer.MET)}, "f2")
    assert [name for name, _ in neighbours_in_words(body)] == ["Faster"]


def test_what_the_timing_cannot_tell_apart_is_not_faster() -> None:
    close = {"f1": RelativeLatency(0.7, 0.002), "f2": RelativeLatency(0.698, 0.002)}
    body = decided([RISKY, SAFE], {"f1": verdict(0.42), "f2": verdict(0.45)}, "f1", close)
    assert neighbours_in_words(body)[1][1].startswith("no engine that was tried is faster")


def test_an_offered_neighbour_says_where_it_is() -> None:
    body = decided([RISKY, replace(FAST, fingerprint="f9")], {"f1": verdict(0.42)}, "f1")
    offer = replace(BODY.result.offers.engines[0], fingerprint="f9")
    body = replace(body, result=replace(body.result, offers=replace(body.result.offers, engines=(offer,))))
    assert neighbours_in_words(body)[1][1].endswith("(front/f1/engine.onnx).")
