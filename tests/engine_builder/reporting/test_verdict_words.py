from __future__ import annotations

from dataclasses import replace

import pytest

from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import Answer, IntervalMethod, Selection
from engine_builder.reporting.verdict_words import verdict_in_words
from tests.engine_builder.report_body import VERDICT


def test_a_verdict_says_the_drop_its_interval_and_how_sure_that_is() -> None:
    assert verdict_in_words(replace(VERDICT, answer=Answer.MET)) == (
        "The accuracy budget is met: top1 drops by 0.00100 (allowed 0.00250) on 400 samples, 3 of which changed; interval of the drop: "
        "-0.00200 to +0.00400, each end with 95% confidence (both at once: at least 90%). The engine is "
        "inside the budget with probability 0.80. The search did not see these samples."
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer.MET_ON_SAMPLE, "The accuracy budget is likely met, although these samples are too few to be certain: top1 drops"),
        (Answer.NOT_MET, "The accuracy budget is not met: top1 drops"),
    ],
)
def test_each_answer_has_its_words(answer: Answer, words: str) -> None:
    assert verdict_in_words(replace(VERDICT, answer=answer)).startswith(words)


def test_too_few_samples_say_how_many_would_do() -> None:
    assert "About 17,000 samples with the same rates would settle it." in verdict_in_words(VERDICT)
    assert "settle" not in verdict_in_words(replace(VERDICT, samples_needed=None))


def test_an_error_rises_and_a_small_one_is_not_rounded_away() -> None:
    words = verdict_in_words(replace(VERDICT, metric=Metric.NMSE, drop=2e-6, budget=5e-6, interval=(1e-6, 3e-6)))
    assert "nmse rises by 2.00e-06 (allowed 5.00e-06)" in words
    assert "interval of the rise: +1.00e-06 to +3.00e-06" in words
    assert "drop" not in words


def test_psnr_is_told_in_decibels_beside_the_least_that_is_allowed() -> None:
    words = verdict_in_words(replace(VERDICT, metric=Metric.PSNR, drop=102.5, budget=110.0, interval=(102.0, 103.0)))
    assert "psnr is 47.50 dB (at least 40.00) on 400 samples" in words
    assert "interval: 47.00 to 48.00 dB" in words


def test_the_interval_is_not_passed_off_as_a_two_sided_one() -> None:
    assert "each end with 99.5% confidence (both at once: at least 99%)" in verdict_in_words(replace(VERDICT, confidence=0.995))


def test_the_verdict_says_whether_the_search_saw_the_samples() -> None:
    words = verdict_in_words(replace(VERDICT, selection=Selection.SHARED))
    assert words.endswith("The search saw the same samples: there are too few to keep some apart.")


@pytest.mark.parametrize(("over", "words"), [(0.004, "above 0.99."), (0.07, "0.93."), (0.9, "0.10."), (0.996, "below 0.01.")])
def test_a_probability_is_never_said_to_be_certain(over: float, words: str) -> None:
    assert f"inside the budget with probability {words}" in verdict_in_words(replace(VERDICT, probability_over_budget=over))


def test_a_drop_inside_the_budget_that_few_samples_do_not_show_says_so() -> None:
    few = replace(VERDICT, answer=Answer.NOT_MET, probability_over_budget=0.6)
    assert "The samples lost no more than is allowed, but so few of them often do where all data lose more." in verdict_in_words(few)
    assert "lost no more" not in verdict_in_words(replace(few, drop=0.01))


def test_a_drop_over_the_budget_that_is_likely_met_says_why() -> None:
    why = "The samples lost more than is allowed; how clearly each decision is made says that all data more likely lose less."
    assert why in verdict_in_words(replace(VERDICT, drop=0.01))
    assert why not in verdict_in_words(VERDICT)
    assert why not in verdict_in_words(replace(VERDICT, drop=0.01, answer=Answer.NOT_MET))


def test_of_the_users_own_model_nothing_is_estimated() -> None:
    words = verdict_in_words(replace(VERDICT, answer=Answer.MET, method=IntervalMethod.SAME_ENGINE))
    assert words == "The accuracy budget is met: the engine is the model that was uploaded, so that nothing is lost."


def test_an_engine_that_scores_better_is_not_said_to_drop_by_less_than_nothing() -> None:
    words = verdict_in_words(replace(VERDICT, drop=-0.01325))
    assert "top1 rises by 0.01325 (a drop of 0.00250 is allowed)" in words
