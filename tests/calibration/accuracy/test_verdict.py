from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.accuracy.budget import Budget
from calibration.accuracy.measures.values import IDENTICAL_PSNR
from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import AccuracyVerdict, Answer, IntervalMethod, Selection, can_decide, judge, smallest_n
from calibration.codec import json_from_value, value_from_json

Scores = NDArray[np.float64]


def verdict(metric: Metric, baseline: Scores, engine: Scores, budget: Budget, confidence: float = 0.95) -> AccuracyVerdict:
    return judge(metric, baseline, engine, budget, confidence=confidence, selection=Selection.HELD_OUT, rng=np.random.default_rng(0))


def paired(both: int, lost: int, gained: int, wrong: int) -> tuple[Scores, Scores]:
    cells = [(1.0, 1.0)] * both + [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained + [(0.0, 0.0)] * wrong
    baseline, engine = np.array(cells).T
    return baseline, engine


def test_a_drop_inside_the_budget_with_room_for_chance_is_met() -> None:
    found = verdict(Metric.TOP1, *paired(8990, 5, 5, 1000), Budget(min_relative=0.99))
    assert found.answer is Answer.MET
    assert (found.n, found.flips, found.samples_needed) == (10_000, 10, 10_000)
    assert found.drop == 0
    assert found.interval[0] < 0 < found.interval[1] < found.budget == pytest.approx(0.01 * 0.8995)
    assert found.probability_over_budget < 0.001


def test_a_drop_inside_the_budget_by_chance_is_met_on_sample_only() -> None:
    found = verdict(Metric.TOP1, *paired(268, 1, 1, 30), Budget(min_relative=0.999))
    assert found.answer is Answer.MET_ON_SAMPLE
    assert found.interval[1] > found.budget
    assert 0.2 < found.probability_over_budget < 0.5
    assert found.samples_needed is not None
    assert found.samples_needed > 10_000


def test_a_drop_over_the_budget_is_not_met_and_no_number_of_samples_would_do() -> None:
    found = verdict(Metric.TOP1, *paired(850, 50, 0, 100), Budget(min_relative=0.99))
    assert found.answer is Answer.NOT_MET
    assert found.drop == pytest.approx(0.05)
    assert found.probability_over_budget > 0.999
    assert found.samples_needed is None


def test_a_drop_of_exactly_the_budget_is_met_on_sample() -> None:
    baseline, engine = paired(7996, 4, 0, 2000)
    assert verdict(Metric.TOP1, baseline, engine, Budget(min_relative=0.9995)).answer is Answer.MET_ON_SAMPLE
    baseline, engine = paired(7995, 5, 0, 2000)
    assert verdict(Metric.TOP1, baseline, engine, Budget(min_relative=0.9995)).answer is Answer.NOT_MET


@pytest.mark.parametrize("n", [1, 8, 300, 1000])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9999, 1.0])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_identical_scores_lose_nothing_and_are_refused_only_where_samples_cannot_tell(n: int, ratio: float, right: float) -> None:
    scores = np.full(n, right)
    for metric in (Metric.TOP1, Metric.AGREEMENT, Metric.COSINE):
        found = verdict(
            metric, scores if metric is Metric.TOP1 else np.ones(n), np.ones(n) if metric is not Metric.TOP1 else scores, Budget(ratio)
        )
        assert (found.answer is Answer.NOT_MET) is (found.probability_over_budget >= 0.5)
        assert found.answer is not Answer.NOT_MET or metric is not Metric.COSINE  # measured, not counted
        assert found.drop == 0
        assert found.interval[0] <= 0 <= found.interval[1]
        json.dumps(json_from_value(found), allow_nan=False)


@pytest.mark.parametrize("cells", [(0, 8, 0, 0), (0, 0, 8, 0), (0, 0, 0, 8), (0, 4, 4, 0), (7, 1, 0, 0), (1, 0, 0, 0)])
@pytest.mark.parametrize("ratio", [0.0, 0.97, 1.0])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9999])
def test_corners_of_tiny_tables_have_an_ordered_interval(cells: tuple[int, int, int, int], ratio: float, confidence: float) -> None:
    found = verdict(Metric.TOP1, *paired(*cells), Budget(min_relative=ratio), confidence)
    assert -1 <= found.interval[0] <= found.drop + 1e-12
    assert found.drop - 1e-12 <= found.interval[1] <= 1
    assert 0 <= found.probability_over_budget <= 1


def test_agreement_cannot_gain_so_its_drop_is_not_below_zero() -> None:
    engine = np.ones(500)
    engine[:2] = 0
    found = verdict(Metric.AGREEMENT, np.ones(500), engine, Budget(min_relative=0.97))
    assert found.answer is Answer.MET
    assert found.interval[0] >= 0
    assert found.method is IntervalMethod.SCORE_AND_EXACT


def test_samples_needed_is_about_what_the_normal_approximation_says() -> None:
    # z^2 f / (budget)^2 at accuracy 0.9 and flips f = 0.5%: 1.67 million, 16,700; the exact bound asks for a little more.
    for ratio, least, most in [(0.9999, 1_670_000, 1_850_000), (0.9985, 7_400, 11_000)]:
        found = verdict(Metric.TOP1, *paired(1795, 5, 5, 195), Budget(min_relative=ratio))
        assert found.answer is Answer.MET_ON_SAMPLE
        assert found.samples_needed is not None
        assert least < found.samples_needed < most


def test_without_a_flip_9999_needs_about_thirty_thousand_samples() -> None:
    assert smallest_n(Budget(min_relative=0.9999), 0.95) == 29_956  # log(0.05) / log(0.9999): the rule of three
    assert smallest_n(Budget(min_relative=0.999), 0.95) == 2_995
    found = verdict(Metric.TOP1, np.ones(500), np.ones(500), Budget(min_relative=0.9999))
    assert found.samples_needed is not None
    assert 29_956 < found.samples_needed < 31_000


@pytest.mark.parametrize("metric", [Metric.AGREEMENT, Metric.TOP1])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.9999])
def test_smallest_n_is_the_first_that_judge_calls_met(metric: Metric, confidence: float) -> None:
    budget = Budget(min_relative=0.99)
    n = smallest_n(budget, confidence, metric=metric)
    assert n is not None
    assert verdict(metric, np.ones(n), np.ones(n), budget, confidence).answer is Answer.MET
    assert verdict(metric, np.ones(n - 1), np.ones(n - 1), budget, confidence).answer is Answer.MET_ON_SAMPLE


def test_no_number_of_samples_shows_that_nothing_is_lost() -> None:
    assert smallest_n(Budget(min_relative=1.0), 0.95) is None
    assert verdict(Metric.TOP1, np.ones(300), np.ones(300), Budget(min_relative=1.0)).samples_needed is None


@pytest.mark.parametrize(
    ("metric", "is_binary", "method"),
    [
        (Metric.CUSTOM, True, IntervalMethod.SCORE_AND_EXACT),
        (Metric.CUSTOM, False, IntervalMethod.BCA),
        (Metric.TOKEN_F1, True, IntervalMethod.BCA),
        (Metric.SPAN_F1, False, IntervalMethod.BCA),
    ],
)
def test_scores_of_0_and_1_are_counted_unless_the_metric_is_real_valued_by_nature(
    metric: Metric, is_binary: bool, method: IntervalMethod
) -> None:
    baseline, engine = np.ones(1200), np.ones(1200)
    engine[:4] = 0.0 if is_binary else 0.5
    found = verdict(metric, baseline, engine, Budget(min_relative=0.9))
    assert (found.method, found.answer) == (method, Answer.MET)


def test_what_can_decide_a_budget_follows_what_the_scores_are() -> None:
    budget = Budget(min_relative=0.9)
    assert can_decide(200, 0.0, budget, 0.95, metric=Metric.CUSTOM)
    assert not can_decide(200, 0.0, budget, 0.95, metric=Metric.CUSTOM, is_binary=False)
    assert not can_decide(200, 0.0, budget, 0.95, metric=Metric.TOKEN_F1)
    assert can_decide(1000, 0.0, budget, 0.95, metric=Metric.TOKEN_F1)
    assert smallest_n(budget, 0.95, metric=Metric.SPAN_F1) == 1000


def test_real_valued_scores_need_a_thousand_samples() -> None:
    for budget in (Budget(max_nmse=0.01), Budget(min_psnr=40.0)):
        assert smallest_n(budget, 0.95) == 1000
        assert can_decide(1000, 0.5, budget, 0.95)
        assert not can_decide(999, 0.0, budget, 0.95)
    assert smallest_n(Budget(min_relative=0.9), 0.95, metric=Metric.COSINE) == 1000


def test_half_of_a_set_can_decide_a_budget_only_if_it_is_large_enough_for_the_flips() -> None:
    budget = Budget(min_relative=0.999)
    assert can_decide(4000, 0.0, budget, 0.95)
    assert not can_decide(4000, 0.005, budget, 0.95)
    assert can_decide(20_000, 0.005, budget, 0.95)
    assert not can_decide(0, 0.0, budget, 0.95)
    assert not can_decide(20_000, 0.005, budget, 0.95, metric=Metric.AGREEMENT)  # every flip is a loss there
    assert can_decide(200, 1.0, Budget(min_relative=0.5), 0.95)


def test_a_mean_far_inside_the_budget_is_met_from_a_thousand_samples_on_only() -> None:
    rng = np.random.default_rng(0)
    for n, answer, method in [(999, Answer.MET_ON_SAMPLE, IntervalMethod.STUDENT_T), (1000, Answer.MET, IntervalMethod.BCA)]:
        engine = 1 - 0.001 * rng.random(n)
        found = verdict(Metric.COSINE, np.ones(n), engine, Budget(min_relative=0.99))
        assert (found.answer, found.method) == (answer, method)
        assert found.drop == pytest.approx(1 - engine.mean())
        assert found.interval[0] < found.drop < found.interval[1] < found.budget
        assert found.samples_needed == 1000


def test_a_mean_just_inside_the_budget_is_met_on_sample() -> None:
    engine = 1 - np.random.default_rng(0).exponential(0.0096, size=1000)
    found = verdict(Metric.COSINE, np.ones(1000), engine, Budget(min_relative=0.99))
    assert found.answer is Answer.MET_ON_SAMPLE
    assert found.interval[1] > found.budget
    assert 0.05 < found.probability_over_budget < 0.5
    assert found.samples_needed is not None
    assert found.samples_needed > 1000


@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("largest", [0.001, 0.003, 0.1])
def test_an_engine_like_the_baseline_rises_by_exactly_nothing(n: int, largest: float) -> None:
    found = verdict(Metric.NMSE, np.zeros(n), np.zeros(n), Budget(max_nmse=largest))
    assert (found.drop, found.interval) == (0.0, (0.0, 0.0))


def test_nmse_and_psnr_are_absolute() -> None:
    rng = np.random.default_rng(0)
    errors = 0.005 + 0.001 * rng.random(1200)
    found = verdict(Metric.NMSE, np.zeros(1200), errors, Budget(max_nmse=0.01))
    assert found.answer is Answer.MET
    assert found.drop == pytest.approx(errors.mean())
    assert found.budget == 0.01
    assert verdict(Metric.NMSE, np.zeros(1200), errors, Budget(max_nmse=0.005)).answer is Answer.NOT_MET
    decibels = 45 + rng.random(1200)
    perfect = np.full(1200, IDENTICAL_PSNR)
    assert verdict(Metric.PSNR, perfect, decibels, Budget(min_psnr=40.0)).answer is Answer.MET
    assert verdict(Metric.PSNR, perfect, decibels, Budget(min_psnr=46.0)).answer is Answer.NOT_MET


def test_fractions_of_agreement_are_judged_as_real_values() -> None:
    engine = np.tile([1.0, 0.75], 10)
    found = verdict(Metric.AGREEMENT, np.ones(20), engine, Budget(min_relative=0.8))
    assert found.method is IntervalMethod.STUDENT_T
    assert found.flips == 10


def test_the_verdict_survives_json_and_repeats_with_its_seed() -> None:
    baseline, engine = paired(95, 2, 1, 2)
    found = verdict(Metric.TOP1, baseline, engine, Budget(min_relative=0.97))
    assert value_from_json(AccuracyVerdict, json.loads(json.dumps(json_from_value(found), allow_nan=False))) == found
    assert verdict(Metric.TOP1, baseline, engine, Budget(min_relative=0.97)) == found


@pytest.mark.parametrize("budget", [{}, {"min_relative": 0.9, "max_nmse": 0.1}, {"min_relative": 1.1}])
def test_a_budget_is_exactly_one_of_three(budget: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"exactly one|within 0\.\.1"):
        Budget(**budget)


@pytest.mark.parametrize(("baseline", "engine"), [([1.0], [1.0, 0.0]), ([], []), ([np.nan], [1.0])])
def test_scores_that_cannot_be_paired_are_refused(baseline: list[float], engine: list[float]) -> None:
    with pytest.raises(ValueError, match=r"same length|finite"):
        verdict(Metric.TOP1, np.array(baseline), np.array(engine), Budget(min_relative=0.9))


def test_scipy_is_not_imported_where_the_score_bound_alone_says_no() -> None:
    code = (
        "import sys; from calibration.accuracy.budget import Budget; from calibration.accuracy.verdict import can_decide; "
        "assert not can_decide(10_000, 0.005, Budget(min_relative=0.9999), 0.95); assert 'scipy' not in sys.modules; "
        "assert can_decide(10_000, 0.005, Budget(min_relative=0.99), 0.95); assert 'scipy' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
