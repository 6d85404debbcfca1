from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from calibration.accuracy.measures.classes import top1
from calibration.accuracy.metrics import Better, BudgetKey, Metric, MetricSpec, Truth, metric_named, names_in_words, unnamed
from calibration.codec import json_from_value, value_from_json
from engine_builder.config.accuracy import AccuracyConfig
from engine_builder.config.config import json_schema


@pytest.mark.parametrize("metric", Metric)
def test_a_metric_is_its_name_wherever_it_is_written(metric: Metric) -> None:
    assert Metric(metric.value) is metric
    assert pickle.loads(pickle.dumps(metric)) is metric
    assert value_from_json(Metric, json_from_value(metric)) is metric
    assert metric_named(str(metric)) is metric


def test_the_name_of_a_newer_metric_is_none_of_ours() -> None:
    assert metric_named("edit_distance") is None
    with pytest.raises(ValueError, match="edit_distance"):
        Metric("edit_distance")


@pytest.mark.parametrize("key", BudgetKey)
def test_every_budget_is_a_setting_and_implies_a_metric(key: BudgetKey) -> None:
    budget = {
        BudgetKey.MIN_RELATIVE: AccuracyConfig(min_relative=0.5),
        BudgetKey.MAX_DROP: AccuracyConfig(max_drop=0.5),
        BudgetKey.MIN_SCORE: AccuracyConfig(min_score=0.5),
        BudgetKey.MAX_NMSE: AccuracyConfig(max_nmse=0.5),
        BudgetKey.MAX_KL: AccuracyConfig(max_kl=0.5),
        BudgetKey.MIN_PSNR: AccuracyConfig(min_psnr=0.5),
        BudgetKey.MIN_SI_SNR: AccuracyConfig(min_si_snr=0.5),
    }[key]
    assert getattr(budget, key) == 0.5
    of_scores = {BudgetKey.MIN_RELATIVE, BudgetKey.MAX_DROP, BudgetKey.MIN_SCORE}  # whose metric follows from the model and its labels
    assert budget.metric is None if key in of_scores else budget.metric is not None and budget.metric.spec.budget_key is key


def test_the_schema_of_the_configuration_says_what_every_metric_is() -> None:
    described = str(json_schema())
    assert [metric for metric in Metric if f"{metric}: {metric.spec.words}." not in described] == []


def test_of_an_error_the_largest_is_the_worst() -> None:
    values = np.array([[0.1, 0.5], [0.2, 0.3]])
    assert Metric.NMSE.spec.worst(values).tolist() == [0.2, 0.5]
    assert Metric.COSINE.spec.worst(values).tolist() == [0.1, 0.3]
    assert (Metric.NMSE.spec.worsening, Metric.COSINE.spec.worsening) == ("rise", "drop")
    assert (Metric.NMSE.spec.score_after(0.25), Metric.COSINE.spec.score_after(0.25)) == (0.25, 0.75)


def test_names_are_put_in_words_for_a_message() -> None:
    assert names_in_words(lambda metric: metric.is_per_token) == "token_f1 or span_f1"


@pytest.mark.parametrize(
    ("contradiction", "match"),
    [
        (lambda: MetricSpec("", Truth.LABELS, unnamed(top1)), "top: found None"),
        (lambda: MetricSpec("", Truth.REFERENCE, unnamed(top1), top=1), "top: found 1"),
        (lambda: MetricSpec("", Truth.REFERENCE, None), "measure: expected"),
        (lambda: MetricSpec("", Truth.OWN, unnamed(top1)), "measure: expected"),
        (lambda: MetricSpec("", Truth.REFERENCE, unnamed(top1), joint=Metric.R2.spec.joint), "measure: expected"),
        (lambda: MetricSpec("", Truth.GIVEN, unnamed(top1)), "joint: expected"),
        (
            lambda: MetricSpec("", Truth.REFERENCE, unnamed(top1), better=Better.LOWER, perfect=0.0, is_perfect_by_definition=True),
            "perfect: found 0.0",
        ),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(contradiction: Callable[[], MetricSpec], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        contradiction()
