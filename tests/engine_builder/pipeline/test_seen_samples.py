from __future__ import annotations

import dataclasses

from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import Selection
from engine_builder.config.config import Config, config_from_json
from engine_builder.pipeline.seen_samples import engines_tried, seen_by, selection_of
from engine_builder.records.trial import FOLDED, Accuracy, Trial, failed_trial
from tests.engine_builder.search.test_measured_front import trial


def asked(**accuracy: object) -> Config:
    return config_from_json({"accuracy": {"metric": "agreement", "min_relative": 0.99, **accuracy}})


def scored(samples: int, flips: float = 0.0) -> Trial:
    accuracy = Accuracy(1.0 - flips, 1.0, 0.01 - flips, flips, binary=True, samples=samples)
    return dataclasses.replace(trial(1, 0.5, 0.0), on_all=accuracy, on_search=dataclasses.replace(accuracy, samples=samples // 2))


def test_samples_are_kept_apart_where_half_of_them_can_decide() -> None:
    assert selection_of([scored(600)], asked(), Metric.AGREEMENT) is Selection.HELD_OUT  # 300 without a flip show 99% at 95%
    assert selection_of([scored(590)], asked(), Metric.AGREEMENT) is Selection.SHARED
    assert selection_of([scored(600, flips=0.005)], asked(), Metric.AGREEMENT) is Selection.SHARED
    assert selection_of([], asked(), Metric.AGREEMENT) is Selection.SHARED


def test_flips_are_those_of_a_quantized_engine() -> None:
    folded = dataclasses.replace(scored(600), order=FOLDED, low_layers=0)
    trials = [scored(600), folded, scored(600, flips=0.005)]
    assert selection_of(trials, asked(), Metric.AGREEMENT) is Selection.SHARED


def test_a_confidence_keeps_samples_apart_as_soon_as_those_can_show_anything() -> None:
    assert selection_of([scored(600, flips=0.005)], asked(confidence=0.95), Metric.AGREEMENT) is Selection.HELD_OUT


def test_a_confidence_on_shared_samples_grows_with_the_engines_tried() -> None:
    trials = [scored(400)]  # 0.99^400 = 0.018: below 0.05, above 0.05 / 3
    view = seen_by(Selection.SHARED, asked(confidence=0.95), Metric.AGREEMENT, trials)
    alone = view(trials[0])
    assert alone is not None
    assert alone.met
    trials += [scored(400), scored(400)]
    among_three = view(trials[0])
    assert among_three is not None
    assert not among_three.met


def test_the_baseline_and_what_failed_are_no_engines_to_choose_from() -> None:
    baseline = dataclasses.replace(scored(100), low_layers=0)
    assert engines_tried([baseline, failed_trial(1, "f", {}, "loss", "crash"), scored(100), scored(100)]) == 2
    assert engines_tried([]) == 1
