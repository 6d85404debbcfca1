from __future__ import annotations

from calibration.codec import json_from_value, value_from_json
from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Accuracy, Trial, failed_trial
from tests.engine_builder.search.fake_world import FakeWorld


def test_on_the_budget_is_inside_it() -> None:
    assert Accuracy(0.9, 0.9, 0.0, 0.0, binary=True, samples=10).met
    assert not Accuracy(0.9, 0.9, -1e-9, 0.0, binary=True, samples=10).met


def test_a_failed_trial_is_not_met_and_says_why() -> None:
    trial = failed_trial(3, "abc", {"a": Precision.INT8}, "loss", "the compiler crashed")
    assert (trial.met, trial.failure, trial.low_layers) == (False, "the compiler crashed", 1)


def test_a_trial_survives_json() -> None:
    world = FakeWorld((0.1, 0.2))
    for trial in (world.trial(1, world.all_quantized, "all_low"), failed_trial(0, "f", {"a": Precision.INT8}, "loss", "no")):
        assert value_from_json(Trial, json_from_value(trial)) == trial
