from __future__ import annotations

from dataclasses import replace

from calibration.accuracy.verdict import Answer, Selection
from engine_builder.reporting.body.job_result import reported_verdict
from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.reporting.decision.next_steps import next_steps, slow_layers, why_not_faster
from tests.engine_builder.report_body import BODY, KEPT_BASELINE, VERDICT, with_verdict
from tests.engine_builder.reporting.decision.decided_bodies import decided, tried, verdict


def told(body: ReportBody, start: str) -> str:
    return next(line for line in next_steps(body) if line.startswith(start))


def test_faster_engines_that_lost_too_much_are_counted_and_the_nearest_is_named() -> None:
    body = decided([tried(1, 0.7, 0.2), tried(2, 0.5, 1.0), tried(3, 0.6, 0.8)], {"f1": verdict(0.2)}, "f1")
    assert why_not_faster(body)[0] == (
        "Of 3 engines that were tried, 2 are faster than what was chosen. All of them are more likely over the accuracy budget than "
        "inside. The nearest is trial 3: 1.67x, top1 0.8875."
    )


def test_the_end_of_the_search_is_said_where_nothing_is_faster() -> None:
    told = why_not_faster(decided([tried(1, 0.7, 0.2)], {"f1": verdict(0.2)}, "f1"))
    assert told[0] == "Of 1 engines that were tried, none is faster than what was chosen."
    assert told[-1] == "The search ended after 3 trials, the baseline among them: nothing left to try."
    assert why_not_faster(KEPT_BASELINE) == []


def test_the_layers_that_stay_float_are_named_by_the_time_that_they_would_save() -> None:
    (slow,) = slow_layers(BODY)  # conv is quantized already
    assert (slow.layer.name, round(slow.saved, 4)) == ("gemm", round(0.1 / 1.4, 4))
    assert "gemm (7.1% of the time" in told(BODY, "To be faster")


def test_the_samples_that_would_settle_the_verdict_are_counted() -> None:
    assert told(BODY, "To be certain") == (
        "To be certain (95% confidence): about 17,000 validation samples in the place of 400, if as many of them change as of these."
    )
    assert "more samples alone may not do" in told(with_verdict(replace(VERDICT, samples_needed=None)), "To be certain")


def test_a_verdict_that_is_certain_asks_for_no_samples() -> None:
    sure = with_verdict(reported_verdict(verdict(0.001, Answer.MET)))
    assert not any(line.startswith("To be certain") for line in next_steps(sure))


def test_samples_that_the_search_saw_are_told() -> None:
    assert told(with_verdict(replace(VERDICT, selection=Selection.SHARED)), "The search saw")


def test_other_budgets_are_told_with_the_key_that_gives_them() -> None:
    assert told(BODY, "Other budgets") == (
        "Other budgets, from engines that were measured: 1.43x at 99.5% (min_relative: 0.995, in front/f1/engine.onnx)."
    )
