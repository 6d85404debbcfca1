"""The one sentence that says why an engine was chosen or the baseline kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from calibration.accuracy.verdict import Answer
from calibration.codec import value_from_json
from calibration.number_formats.precision import Precision
from calibration.sensitivity.records import Sensitivity, SensitivityTable
from engine_builder.records.trial import Trial, failed_trial
from engine_builder.reporting.reason import reason, why_none_ran
from engine_builder.stage_io.engines import VerdictResult
from tests.engine_builder.report_desk import KEPT, NAMES, WORLD, improved, judged, trials_of, verdict
from tests.engine_builder.search.fake_world import FakeWorld

TABLE = SensitivityTable(
    tuple(Sensitivity(name, Precision.INT8, 10.0 ** -(index + 2), 0.0, None, None) for index, name in enumerate(NAMES)), 60, 32, 4.0, ()
)


def reason_of(
    trials: Sequence[Trial],
    judgement: Mapping[str, object],
    *,
    finalists: Sequence[Trial] | None = None,
    confidence: float | None = None,
    table: SensitivityTable = TABLE,
    slower: bool = False,
) -> str:
    """Return the reason; the finalists are all trials where any was judged."""
    decided = value_from_json(VerdictResult, judgement)
    asked = (trials if decided.judged else ()) if finalists is None else finalists
    known = (trials, asked, decided, table.rows)
    return reason(*known, can_quantize=bool(table.rows), confidence=confidence, ended="nothing left to try", slower=slower)


def test_the_reason_for_an_improvement() -> None:
    trials = trials_of(0, 4, 2)
    words = reason_of(trials, improved(trials[2], verdict(3)))
    fastest = "The fastest engine that keeps the accuracy budget, of 2 low-precision engines tried."
    assert words == f"{fastest} It is inside the budget with probability above 0.99."


def test_the_reason_says_where_the_fastest_was_left_for_a_safer_one() -> None:
    trials = trials_of(0, 4, 2)
    answer = improved(trials[2], verdict(3))
    answer["spread"] = {trials[1].fingerprint: {"ratio": 0.795, "mad": 0.01}, trials[2].fingerprint: {"ratio": 0.8, "mad": 0.01}}
    words = reason_of(trials, answer)
    assert words.startswith(
        "The safest engine among those that keep the accuracy budget and that the timing cannot tell from the fastest, of 2"
    )


def test_the_reason_says_so_where_everything_is_quantized() -> None:
    trials = trials_of(0, 4, world=FakeWorld((0.0,) * 4))
    words = reason_of(trials, improved(trials[1], verdict(0)))
    only = "The only low-precision engine tried: it keeps the accuracy budget."
    assert words == f"{only} Every layer that can be quantized is quantized. It is inside the budget with probability above 0.99."


def test_the_reason_says_what_a_one_format_engine_of_a_dynamic_precision_leaves_in_floats() -> None:
    trials = trials_of(0, 4, world=FakeWorld((0.0,) * 4))
    dynamic = dataclasses.replace(trials[1], precisions=dict.fromkeys(trials[1].precisions, Precision.INT8_DYNAMIC))
    words = reason_of((trials[0], dynamic), improved(dynamic, verdict(0)))
    assert "Every layer that can be in int8_dynamic is, and all others are floats." in words


def test_the_reason_says_that_finalists_failed_in_the_verdict() -> None:
    trials = trials_of(0, 4, 2)
    assert "failed as they were built and timed for the verdict" in reason_of(trials, KEPT, finalists=trials[2:])


def test_the_reason_counts_the_engines_that_missed_the_budget() -> None:
    trials = trials_of(0, 4, 2, world=FakeWorld((0.1,) * 4))
    assert reason_of(trials, KEPT).startswith("None of 2 low-precision engines kept the accuracy budget.")


def test_the_reason_says_where_samples_were_too_few_to_tell() -> None:
    first, *others = trials_of(0, 4, 2)
    untold = []
    for trial in others:
        assert trial.on_all is not None
        untold.append(dataclasses.replace(trial, on_all=dataclasses.replace(trial.on_all, probability_over=0.6)))
    words = reason_of((first, *untold), KEPT)
    assert words.startswith("None of 2 low-precision engines is more likely inside the accuracy budget than not: 1 lost no more than")
    assert words.endswith("samples, which are too few to tell.")


def test_the_reason_names_the_layers_that_stood_in_the_way() -> None:
    trials = trials_of(0, 4, world=FakeWorld((0.1,) * 4))
    words = reason_of(trials, KEPT)
    assert words.startswith("The only low-precision engine tried missed the accuracy budget.")
    assert "layer000 (int8), layer001 (int8)" in words


def test_engines_that_all_failed_are_told_with_their_reasons() -> None:
    failed_ones = [failed_trial(place, f"f{place}", {"layer000": Precision.INT8}, "loss", "no such kernel") for place in (1, 2)]
    assert why_none_ran((*trials_of(0), *failed_ones)) == "all 2 that were tried failed, each with the same reason: no such kernel"
    other = failed_trial(3, "f3", {"layer000": Precision.INT8}, "loss", "out of memory")
    assert why_none_ran((*failed_ones, other)) == "all 3 that were tried failed, for 2 reasons, the first of which is: no such kernel"
    assert why_none_ran((*trials_of(0, 4), *failed_ones)) is None
    assert why_none_ran(trials_of(0)) is None


def test_the_reason_where_no_engine_could_be_built() -> None:
    trials = (*trials_of(0), failed_trial(1, "f", {"layer000": Precision.INT8}, "all_low", "no such kernel"))
    assert reason_of(trials, KEPT) == "No quantized engine could be built or run: no such kernel"


def test_the_reason_where_engines_were_slower() -> None:
    world = dataclasses.replace(WORLD, gains=(-0.01,) * 4)
    words = reason_of(trials_of(0, 2, world=world), KEPT)
    assert words == "Engines kept the accuracy budget, but none was faster than the baseline: the best took 1.02 of its time."


def test_the_reason_says_that_the_machine_was_busy() -> None:
    first, *others = trials_of(0, 2, world=dataclasses.replace(WORLD, gains=(-0.01,) * 4))
    assert first.latency is not None
    held_up = dataclasses.replace(first, latency=dataclasses.replace(first.latency, p95_ms=5 * first.latency.median_ms))
    words = reason_of((held_up, *others), KEPT)
    assert "the slowest 5% of the baseline's calls took 5 times the median or more" in words


def test_a_best_engine_whose_latency_is_predicted_is_not_said_to_have_taken_it() -> None:
    world = dataclasses.replace(WORLD, gains=(-0.01,) * 4)
    words = reason_of(trials_of(0, 2, world=world), {**KEPT, "least_gain": 0.2})
    assert words.endswith("the best is predicted to take 1.02 of its time.")


@pytest.mark.parametrize(("lost", "confidence"), [(0, None), (0, 0.95), (30, None)])
def test_the_reason_where_engines_passed_the_verdict_but_were_within_the_spread(lost: int, confidence: float | None) -> None:
    trials = trials_of(0, 2)
    answer = verdict(lost)
    assert answer.answer is (Answer.MET_ON_SAMPLE if lost else Answer.MET)
    words = reason_of(trials, {**KEPT, "judged": [judged(trials[1], answer)]}, confidence=confidence)
    assert words == (
        "Engines kept the accuracy budget, but none was faster than the baseline by at least 3% beyond the spread of the timing, which is "
        "what makes another model worth it."
    )


def test_the_reason_where_none_passed_at_the_confidence_asked_for() -> None:
    trials = trials_of(0, 2)
    words = reason_of(trials, {**KEPT, "judged": [judged(trials[1], verdict(30))]}, confidence=0.95)
    assert words == "Engines kept the accuracy budget in the search, but none passed the verdict at the confidence asked for, 95%."


def test_the_reason_where_none_passed_and_no_confidence_was_asked_for() -> None:
    trials = trials_of(0, 2)
    words = reason_of(trials, {**KEPT, "judged": [judged(trials[1], verdict(300))]})
    assert words == "Engines kept the accuracy budget in the search, but none passed the verdict."


def test_the_reason_where_no_layer_can_be_quantized() -> None:
    words = reason_of(trials_of(0), KEPT, table=SensitivityTable((), 60, 32, 1.0, ()))
    assert words == "No low-precision engine was tried: no layer can take a lower precision."


def test_the_reason_where_every_layer_is_predicted_to_be_slower() -> None:
    words = reason_of(trials_of(0), KEPT, table=SensitivityTable((), 60, 32, 1.0, ()), slower=True)
    assert words.endswith("no layer that can take a lower precision is predicted to be faster in it.")


def test_the_reason_says_which_layers_everything_is_where_slower_ones_were_left_out() -> None:
    trials = trials_of(0, 4, world=FakeWorld((0.0,) * 4))
    words = reason_of(trials, improved(trials[1], verdict(0)), slower=True)
    assert "Every layer that can be quantized and is not predicted to be slower is quantized." in words


def test_the_reason_where_the_search_ended_before_the_first_engine() -> None:
    assert reason_of(trials_of(0), KEPT) == "No low-precision engine was tried: nothing left to try."


def test_the_reason_where_the_best_passed_but_is_within_the_error_of_a_prediction() -> None:
    trials = trials_of(0, 2)
    words = reason_of(trials, {**KEPT, "judged": [judged(trials[1], verdict(0))], "least_gain": 0.3})
    assert words.startswith(
        "Engines kept the accuracy budget, but none was faster than the baseline by more than the error of a prediction, 30%: the best is "
        "predicted at 0.75 of its time."
    )


@pytest.mark.parametrize(
    ("over", "keeps"), [(0.05, "likely keeps the accuracy budget"), (0.42, "more likely keeps than misses the accuracy budget")]
)
def test_the_reason_says_no_more_than_the_verdict(over: float, keeps: str) -> None:
    trials = trials_of(0, 4, 2)
    unsure = dataclasses.replace(verdict(3), answer=Answer.MET_ON_SAMPLE, probability_over_budget=over)
    assert reason_of(trials, improved(trials[2], unsure)).startswith(f"The fastest engine that {keeps}, of 2")
