"""Predictions of a runtime that names its kernels, from real trials."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.records import Sensitivity
from engine_builder.pipeline.stage_table import TRIAL
from engine_builder.search.moves.steps_from import StepsFrom
from engine_builder.stage_io.engines import PredictRequest, PredictResult, TrialRequest
from engine_builder.stages.predict import predict
from engine_builder.workspace.workspace import StageContext
from tests.driver import REAL_TIME, ranged
from tests.engine_builder.stages.test_predict import LAYERS, Predicting, ranked, sequences_of, trial
from tests.model_text import cnn, samples_for


@pytest.fixture(scope="module")
def profiled_job(tmp_path_factory: pytest.TempPathFactory) -> Predicting:
    """The small network with real trials of the float and the all-quantized engine, as they are in a job."""
    root = tmp_path_factory.mktemp("profiled")
    driver, searched = ranged(
        root / "workspace", cnn(), samples_for(cnn(), 40), config={"accuracy": {"metric": "agreement", "min_relative": 0.9}}
    )
    driver.timer = REAL_TIME
    trials = tuple(
        driver.run(TRIAL, TrialRequest(searched, dict.fromkeys(names, Precision.INT8), index, order))
        for index, (names, order) in enumerate((((), "baseline"), (LAYERS, "all_low")))
    )
    scratch = root / "scratch"
    scratch.mkdir()
    context = StageContext(driver.workspace, scratch, lambda fraction, message: None)
    rows = tuple(Sensitivity(layer, Precision.INT8, 10.0**-index, 0.0, None, None) for index, layer in enumerate(LAYERS))
    order = tuple(LayerPrecision(layer, Precision.INT8) for layer in reversed(LAYERS))
    return PredictRequest(searched, ranked("profiled", rows, order, context), trials), context


def test_where_trials_have_kernels_every_second_layer_is_profiled_and_predictions_have_errors(profiled_job: Predicting) -> None:
    request, context = profiled_job
    found = predict(request, context)
    assert found.probe is not None
    assert 0 < len(found.probe.precisions) < len(LAYERS)
    assert found.time_model.fitted is not None
    assert all(len(sequence.errors) == len(sequence.ratios) for sequence in found.ladders)
    assert all(error > 0.0 for sequence in found.ladders for error in sequence.errors)
    assert set(found.kernels_ms) == set(LAYERS)

    later = replace(request, kernels_ms=found.kernels_ms, probe=found.probe)
    shutil.rmtree(context.scratch / "probe")
    again = predict(later, context)
    assert again.probe == found.probe
    assert again == predict(later, context)
    assert not (context.scratch / "probe").exists()


def test_a_new_trials_kernels_change_what_is_predicted(profiled_job: Predicting) -> None:
    request, context = profiled_job
    shutil.rmtree(context.scratch / "probe", ignore_errors=True)
    found = predict(request, context)
    later = replace(request, kernels_ms=found.kernels_ms, probe=found.probe)
    assert found.probe is not None
    half = replace(trial(2, LAYERS[:2], 1.0, "loss"), kernels=found.probe.kernels)

    def told(ratio: float) -> PredictResult:
        assert half.latency is not None
        slow = replace(half, latency=replace(half.latency, ratio=ratio))
        return predict(replace(later, trials=(*request.trials, slow)), context)

    slow, fast = told(3.0), told(0.3)
    assert slow.time_model.trials == 3
    assert slow.predicted["f2"].ratio > fast.predicted["f2"].ratio


def test_where_the_model_learns_every_call_gives_the_orders(profiled_job: Predicting) -> None:
    request, context = profiled_job
    shutil.rmtree(context.scratch / "probe", ignore_errors=True)
    found = predict(request, context)
    later = predict(replace(request, kernels_ms=found.kernels_ms, probe=found.probe, refined=True), context)
    assert [list(sequences_of(one)) for one in (found, later)] == [["frontier", "loss"], ["refine", "loss"]]


def test_steps_from_measured_engines_are_given_where_they_are_asked_for(profiled_job: Predicting) -> None:
    request, context = profiled_job
    shutil.rmtree(context.scratch / "probe", ignore_errors=True)
    found = predict(request, context)
    lossy = tuple(replace(one, loss=0.5 if one.precisions else 0.0) for one in request.trials)
    around = StepsFrom(tuple(one.fingerprint for one in lossy), 0.4, 9.0)
    later = predict(replace(request, trials=lossy, kernels_ms=found.kernels_ms, probe=found.probe, around=around), context)
    assert list(sequences_of(later)) == ["moves"]
    steps = sequences_of(later)["moves"]
    assert {("Conv_c2",), ("Gemm_logits",)} <= {tuple(one) for one in steps.rungs}  # from the baseline
    assert len(steps.rungs) == len(steps.errors) == len(steps.fingerprints)
    assert all(dict(one) != dict.fromkeys(LAYERS, Precision.INT8) for one in steps.rungs)
