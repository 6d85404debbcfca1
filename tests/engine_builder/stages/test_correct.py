from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.accuracy.metrics import OutputKind
from calibration.codec import json_from_value
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.task_losses import losses
from engine_builder.pipeline.stage_table import BIASES, CORRECT, TRIAL
from engine_builder.records.calibrated import read_corrections
from engine_builder.records.corrections import CorrectionKind, CorrectionTable
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import TrialRequest
from engine_builder.stage_io.measuring import BiasesRequest
from engine_builder.stages.correct import split
from tests.driver import Json, correct_request, plain_outputs, ranged, run_job, trials_of, with_corrections
from tests.model_text import Array, cnn, model_from_text, samples_for


def network() -> onnx.ModelProto:
    """Two layers, the first with little weight on the channel that may be large."""
    model = model_from_text(
        "g (float[N,16] x) => (float[N,4] y) { a = MatMul(x, w1) r = Relu(a) y = Gemm(r, w2, b2) }",
        {"w1": (16, 8), "w2": (8, 4), "b2": (4,)},
    )
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    array = numpy_helper.to_array(weight) * np.where(np.arange(16) == 3, 0.01, 1)[:, None]
    weight.CopyFrom(numpy_helper.from_array(array.astype(np.float32), "w1"))
    return model


def samples(count: int, *, large: bool) -> dict[str, Array]:
    """Return samples, one channel of which is a hundred times as large as the others if ``large``."""
    scale = np.where(np.arange(16) == 3, 100 if large else 1, 1)
    return {"x": np.asarray(samples_for(network(), count)["x"] * scale, dtype=np.float32)}


def corrected(folder: Path, calibration: Mapping[str, Array], config: Json | None = None) -> CorrectionTable:
    driver, basics = ranged(folder, network(), dict(calibration), samples(16, large=False), config)
    return read_corrections(with_corrections(driver, basics).calibrated, driver.workspace)


def test_a_smooth_quant_scaling_that_helps_is_kept_with_its_gain(tmp_path: Path) -> None:
    table = corrected(tmp_path, samples(192, large=True))
    first = table.tried[0]
    assert [smooth_quant.tensor for smooth_quant in table.smooth_quants][:1] == ["x"]
    assert first.kept
    assert first.loss_after < 0.6 * first.loss_before
    assert first.samples == 48


def test_a_smooth_quant_scaling_that_does_not_help_is_shown_and_not_kept(tmp_path: Path) -> None:
    even = samples(192, large=False)
    table = corrected(tmp_path, even)
    assert len(table.tried) == 2
    assert "x" not in [smooth_quant.tensor for smooth_quant in table.smooth_quants]


def test_the_range_of_a_kept_smooth_quant_holds_every_calibration_sample(tmp_path: Path) -> None:
    calibration = samples(192, large=True)
    smooth_quant = corrected(tmp_path, calibration).smooth_quants[0]
    product = np.asarray(calibration["x"], dtype=np.float32) * smooth_quant.factor
    assert (smooth_quant.low, smooth_quant.high) == (float(product.min()), float(product.max()))


def test_two_runs_find_the_same(tmp_path: Path) -> None:
    calibration = samples(192, large=True)
    assert corrected(tmp_path / "a", calibration) == corrected(tmp_path / "b", calibration)


def test_too_few_samples_to_judge_on_mean_no_correction(tmp_path: Path) -> None:
    assert corrected(tmp_path, samples(3, large=True)) == CorrectionTable()


def test_biases_are_the_table_without_the_costly_corrections(tmp_path: Path) -> None:
    driver, job = ranged(tmp_path, network(), samples(192, large=True), samples(16, large=False))
    made = driver.run(BIASES, BiasesRequest(job.calibrated, job.config.search.seed))
    known = replace(job, calibrated=replace(job.calibrated, corrections=made.corrections))
    biases = read_corrections(known.calibrated, driver.workspace)
    assert (biases.smooth_quants, biases.tried, biases.levels, biases.shifts, made.changed) == ((), (), None, None, ())
    assert biases.correction is not None
    whole = read_corrections(with_corrections(driver, job).calibrated, driver.workspace)
    assert read_corrections(with_corrections(driver, known).calibrated, driver.workspace) == whole  # what is known is not measured again
    assert whole.correction == biases.correction
    assert whole.smooth_quants


def test_what_corrections_change_is_named(tmp_path: Path) -> None:
    driver, job = ranged(tmp_path, network(), samples(192, large=True), samples(16, large=False), {"precisions": ["int8", "int8_dynamic"]})
    made = driver.run(CORRECT, correct_request(job))
    table = read_corrections(replace(job.calibrated, corrections=made.corrections), driver.workspace)
    smoothed = {name for smooth_quant in table.smooth_quants for name in smooth_quant.layers}
    assert smoothed
    assert set(made.changed) >= {LayerPrecision(name, Precision.INT8) for name in smoothed}
    assert {item.precision for item in made.changed} == {Precision.INT8}  # dynamic layers are not smoothed


@pytest.mark.long
def test_a_job_that_needs_corrections_gets_the_engine_of_one_that_measured_them_first(tmp_path: Path) -> None:
    config = {"accuracy": {"metric": "fidelity", "min_relative": 0.999}, "outputs": {"y": "logits"}, "precisions": ["int8"]}
    jobs = [
        run_job(tmp_path / analysis, network(), samples(192, large=True), samples(64, large=True), {**config, "analysis": analysis})
        for analysis in ("auto", "full")
    ]
    auto, full = (trials_of(one) for one in jobs)
    without = next(trial for trial in auto if trial.order == "all_low")
    corrected, first = ([trial for trial in trials if trial.order == "all_low"][-1] for trials in (auto, full))
    assert without.made_with is not None
    assert corrected.fingerprint not in {without.fingerprint, first.fingerprint}
    assert corrected.loss == pytest.approx(first.loss, rel=1e-6)  # the same engine
    assert without.loss is not None
    assert corrected.loss is not None
    assert corrected.loss < without.loss


@pytest.mark.parametrize(("count", "batch"), [(2, 1), (8, 1), (100, 1), (1000, 1), (64, 16), (32, 32), (1024, 64)])
def test_a_split_is_disjoint_and_of_whole_batches(count: int, batch: int) -> None:
    fitted, held_out = split(count, batch, seed=3)
    assert not set(fitted) & set(held_out) or not len(held_out)
    assert len(held_out) % batch == 0
    assert len(fitted) % batch == 0 or not len(held_out)
    assert len(held_out) <= max(48, batch)
    assert len(held_out) <= len(fitted)


@pytest.mark.long
@pytest.mark.parametrize("wanted", [True, False])
def test_the_report_shows_corrections_unless_they_are_switched_off(tmp_path: Path, wanted: bool) -> None:
    config = {"calibration": {"repair": wanted}, "outputs": {"y": "logits"}}
    finished = run_job(tmp_path, network(), samples(192, large=True), samples(16, large=True), config)
    shown = cast(Sequence[Json], finished.report["repairs"])
    assert [item["what"] for item in shown] == ["SmoothQuant", "SmoothQuant", "bias correction"] * wanted
    assert ("x_Mul" in finished.path(finished.outcome.artifacts["model.explicit.onnx"]).read_bytes().decode("latin1")) is wanted


def biased(folder: Path, network: onnx.ModelProto, calibration: Mapping[str, Array]) -> Trial:
    """Return the trial of the engine with every layer quantized."""
    driver, basics = ranged(folder, network, dict(calibration), dict(samples_for(network, 16, seed=5)))
    job = with_corrections(driver, basics)
    return driver.run(TRIAL, TrialRequest(job, dict.fromkeys(job.calibrated.eligible, Precision.INT8), 1, "all_low"))


def test_a_bias_correction_is_kept_exactly_where_it_lowers_the_loss_on_other_samples(tmp_path: Path) -> None:
    kept = []
    for name, model in {"cnn": cnn(), "network": network()}.items():
        trial = biased(tmp_path / name, model, samples_for(model, 128))
        bias = trial.bias
        assert bias is not None
        assert (bias.what, bias.samples) == (CorrectionKind.BIAS_CORRECTION, 32)
        assert bias.kept is (bias.loss_after < bias.loss_before)
        assert (trial.corrections is not None) is bias.kept
        kept.append(bias.kept)
    assert any(kept)


def test_the_engine_of_a_trial_is_built_again_with_its_corrections(tmp_path: Path) -> None:
    finished = run_job(tmp_path, cnn(), samples_for(cnn(), 64), samples_for(cnn(), 40, seed=5), {"accuracy": {"min_relative": 0.5}})
    chosen = next(trial for trial in trials_of(finished) if trial.low_layers)
    assert chosen.bias is not None
    assert [item for item in cast(Sequence[Json], finished.report["repairs"]) if item["what"] == "bias correction"] == [
        json_from_value(chosen.bias)
    ]
    validation = samples_for(cnn(), 40, seed=5)
    reference = plain_outputs(finished.model_bytes, validation, 40)
    found = float(np.mean(losses([OutputKind.LOGITS], reference, plain_outputs(finished.engine, validation, 40))))
    assert found == pytest.approx(chosen.loss, rel=1e-3)  # another batch, other sums
