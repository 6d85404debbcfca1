from __future__ import annotations

import numpy as np
import pytest

from calibration.number_formats.precision import Precision
from calibration.sensitivity.records import Sensitivity, SensitivityTable
from engine_builder.profiling.predictions import loss_model, predictions
from engine_builder.records.trial import Trial, failed_trial
from engine_builder.search.loss_model import LossCheck
from engine_builder.stage_io.engines import FittedTimes, PredictedSequence, PredictResult

INT8, INT4, FP32 = Precision.INT8, Precision.INT4, Precision.FP32


def table_of(*layer_precisions: tuple[str, Precision, float]) -> SensitivityTable:
    rows = tuple(Sensitivity(layer, precision, loss, 0.0, None, None) for layer, precision, loss in layer_precisions)
    return SensitivityTable(rows, 8, 8, 1.0, ())


TABLE = table_of(("a", INT8, 0.1), ("b", INT8, 0.2), ("b", INT4, 0.7))
PAIRS = np.array([[0.0, 0.03, 0.05], [0.03, 0.0, 0.0], [0.05, 0.0, 0.0]])
ARRAYS = {"likely": PAIRS, "likely_error": np.zeros((3, 3)), "common_error": np.zeros((3, 3)), "loss_covariance": np.zeros((3, 3))}
LOSSES = loss_model(TABLE, ARRAYS)
SEQUENCE = PredictedSequence("loss", ({}, {"a": INT8}), (0.9, 0.8), ("f0", "f1"))
PREDICTION = PredictResult((SEQUENCE,), {}, FittedTimes(0.0, {}, 0), LossCheck(1.0, 0, 0, 0.0), {})


def test_the_predicted_loss_is_of_second_order_in_the_precisions_of_the_trial() -> None:
    trials = [failed_trial(0, "f0", {}, "baseline", "")]
    trials += [failed_trial(1, "f1", {"a": INT8, "b": INT8}, "loss", ""), failed_trial(2, "f2", {"a": INT8, "b": INT4}, "loss", "")]
    assert [item.loss for item in predictions(trials, LOSSES, [])] == pytest.approx([0.0, 0.33, 0.85])


def measured(index: int, quantized: dict[str, Precision], loss: float) -> Trial:
    return Trial(index, f"f{index}", quantized, "loss", len(quantized), None, None, loss, None, None, None, 1.0, None)


def test_predictions_are_refitted_to_the_measured_losses_each_with_an_error_bar() -> None:
    errors = {**ARRAYS, "likely_error": np.full((3, 3), 0.04), "loss_covariance": np.full((3, 3), 0.03**2)}
    trials = [measured(0, {}, 0.0), *(measured(index, {"a": INT8, "b": INT8}, 0.66) for index in range(1, 4))]
    said = predictions(trials, loss_model(TABLE, errors), [])[1]
    assert said.loss == pytest.approx(0.33)
    assert said.loss_error == pytest.approx(((2 * 0.03 * 0.33 / 0.3) ** 2 + 0.04**2) ** 0.5)
    assert said.refitted == pytest.approx(0.33 * 2.0**0.5)  # three trials of twice the loss, against as much trust in the model
    assert said.loss_error is not None
    assert said.refitted_error is not None
    assert said.refitted_error > said.loss_error


def test_an_error_that_is_not_known_is_none() -> None:
    unknown = {**ARRAYS, "likely_error": np.full((3, 3), np.inf)}
    said = predictions([failed_trial(0, "f0", {"a": INT8, "b": INT8}, "loss", "")], loss_model(TABLE, unknown), [])[0]
    assert (said.loss_error, said.refitted_error) == (None, None)


def test_the_predicted_latency_is_that_of_the_candidate_that_was_tried() -> None:
    trials = [failed_trial(0, "f1", {"a": INT8}, "loss", ""), failed_trial(1, "f1", {"a": INT8}, "all_low", "")]
    assert [item.ratio for item in predictions(trials, LOSSES, [PREDICTION])] == [0.8, None]


def test_without_probes_the_latency_alone_is_predicted() -> None:
    said = predictions([failed_trial(0, "f1", {"a": INT8}, "loss", "")], None, [PREDICTION])[0]
    assert (said.loss, said.loss_error, said.refitted, said.refitted_error, said.ratio) == (None, None, None, None, 0.8)
