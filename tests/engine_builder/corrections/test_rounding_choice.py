"""GPTQ weights as a part of the stage ``correct``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.algorithms.gptq import Levels
from calibration.data.dataset import CalibrationSet, load_saved
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from engine_builder.corrections.method import Bench, InUse
from engine_builder.corrections.rounding_choice import choose_rounding
from engine_builder.pipeline.stage_table import CORRECT
from engine_builder.records.corrections import Correction, CorrectionKind, CorrectionTable, read_levels
from engine_builder.records.inspection import Inspection
from engine_builder.stage_io.measuring import CorrectResult
from engine_builder.stages.correct import split
from engine_builder.workspace.workspace import Workspace
from tests.driver import Json, correct_request, inspection_of, ranged, run_job
from tests.model_text import Array, model_from_text, samples_for

TEXT = "g (float[N,64] x) => (float[N,4] y) { a = MatMul(x, w1) r = Relu(a) y = Gemm(r, w2, b2) }"


def network() -> onnx.ModelProto:
    return model_from_text(TEXT, {"w1": (64, 32), "w2": (32, 4), "b2": (4,)})


def samples(count: int, *, correlated: bool) -> dict[str, Array]:
    """Return samples whose features go together if ``correlated``."""
    rng = np.random.default_rng(2)
    if not correlated:
        return samples_for(network(), count)
    x = rng.normal(size=(count, 8)) @ np.random.default_rng(3).normal(size=(8, 64)) + 0.05 * rng.normal(size=(count, 64))
    return {"x": np.asarray(0.3 * x, dtype=np.float32)}  # logits near each other: the losses of samples are of one size


def prepared(folder: Path, feeds: dict[str, Array]) -> tuple[onnx.ModelProto, Inspection, CalibrationSet]:
    driver, basics = ranged(folder, network(), feeds, samples_for(network(), 16))
    inspection = inspection_of(driver, basics)
    return (
        onnx.load(driver.workspace.path(inspection.model.file)),
        inspection,
        load_saved(driver.workspace.path(inspection.samples.calibration)),
    )


def rounded(
    model: onnx.ModelProto,
    inspection: Inspection,
    layer_precisions: Sequence[LayerPrecision],
    data: CalibrationSet,
    fitted: NDArray[np.int64],
    held_out: NDArray[np.int64],
) -> tuple[Levels, tuple[Correction, ...]]:
    """Return the levels that are kept for 4-bit weights of TensorRT, and what was tried."""
    record = replace(inspection.model, scheme=TENSORRT_SCHEME)
    bench = Bench(model, record, tuple(layer_precisions), data, fitted, held_out, gptq=(Precision.INT4,))
    in_use, tried = choose_rounding(bench, InUse({}), lambda share, what: None)
    return in_use.levels, tried


def test_four_bit_weights_that_help_are_kept_with_their_gain(tmp_path: Path) -> None:
    model, found, data = prepared(tmp_path, samples(192, correlated=True))
    layer_precisions = [LayerPrecision(layer.name, Precision.INT4) for layer in found.model.layers]
    fitted, held_out = split(192, 1, seed=0)
    levels, tried = rounded(model, found, layer_precisions, data, fitted, held_out)
    assert {entry.where[0] for entry in tried} == {layer.name for layer in found.model.layers}
    assert all(entry.what is CorrectionKind.GPTQ for entry in tried)
    assert {(entry.where[0], Precision.INT4) for entry in tried if entry.kept} == levels.keys()
    before, after = (sum(getattr(entry, key) for entry in tried) for key in ("loss_before", "loss_after"))
    assert levels
    assert after < 0.5 * before


def test_levels_fitted_to_other_data_than_they_are_judged_on_are_not_kept(tmp_path: Path) -> None:
    feeds = samples(192, correlated=True)
    fitted, held_out = split(192, 1, seed=0)
    mixed = feeds["x"].copy()
    mixed[held_out] = np.asarray(np.random.default_rng(9).normal(size=(len(held_out), 64)) * 3, dtype=np.float32)
    model, found, data = prepared(tmp_path, {"x": mixed})
    layer_precisions = [LayerPrecision(layer.name, Precision.INT4) for layer in found.model.layers[:1]]
    levels, tried = rounded(model, found, layer_precisions, data, fitted, held_out)
    assert [entry.kept for entry in tried] == [False]
    assert levels == {}


def coarse() -> onnx.ModelProto:
    """A convolution whose 8-bit weights are coarse: those of one channel, which hardly matters, are far larger than the others."""
    text = """g (float[N,8,6,6] x) => (float[N,4] y)
    { a = Conv(x, w1, b1) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, w2, b2) }"""
    model = model_from_text(text, {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (16, 4), "b2": (4,)})
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    scaled = numpy_helper.to_array(weight) * np.where(np.arange(8) == 3, 60, 1)[:, None, None]
    weight.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), "w1"))
    return model


def pictures(count: int) -> dict[str, Array]:
    """Return pictures whose channels go together, but for the one that hardly matters."""
    rng = np.random.default_rng(4)
    x = np.einsum("nkhw,kc->nchw", rng.normal(size=(count, 2, 6, 6)), rng.normal(size=(2, 8)))
    x[:, 3] *= 0.002
    return {"x": x.astype(np.float32)}


def corrected(folder: Path, config: Json) -> tuple[CorrectionTable, Workspace, CorrectResult]:
    driver, job = ranged(folder, coarse(), pictures(192), pictures(16), config)
    result = driver.run(CORRECT, correct_request(job))
    return driver.workspace.read_value(CorrectionTable, result.corrections), driver.workspace, result


def test_eight_bit_weights_are_tried_where_asked_or_where_their_rounding_is_much_of_the_loss(tmp_path: Path) -> None:
    tried: dict[str, set[str]] = {}
    configs: dict[str, Json] = {
        "asked": {"calibration": {"second_order": ["int8"]}},
        "default": {},
        "none": {"calibration": {"second_order": []}},
    }
    for name, config in configs.items():
        table, _, _ = corrected(tmp_path / name, config)
        tried[name] = {entry.where[0] for entry in table.tried if entry.what is CorrectionKind.GPTQ}
        assert (table.levels is None) is (name == "none")
    assert tried == {"asked": {"Conv_a", "Gemm_y"}, "default": {"Conv_a"}, "none": set()}


def test_weights_that_are_fine_enough_are_left_to_the_nearest_levels(tmp_path: Path) -> None:
    """The inputs are clipped to a tenth of their range, so that the rounding of the weights is next to nothing."""
    model, found, data = prepared(tmp_path, samples(192, correlated=False))
    fitted, held_out = split(192, 1, seed=0)
    wanted = tuple(LayerPrecision(layer.name, Precision.INT8) for layer in found.model.layers)
    bench = Bench(model, found.model, wanted, data, fitted, held_out, gptq=(Precision.INT4,))
    names = {name for layer in found.model.layers for name in (*layer.inputs, layer.output)}
    in_use, tried = choose_rounding(bench, InUse(dict.fromkeys(names, (-0.1, 0.1))), lambda share, what: None)
    assert (in_use.levels, tried) == ({}, ())


def test_kept_levels_go_through_a_file_that_the_stage_names_into_the_engine(tmp_path: Path) -> None:
    config: Json = {"calibration": {"second_order": ["int8"]}, "accuracy": {"min_relative": 0.3}, "search": {"max_trials": 2}}
    table, workspace, result = corrected(tmp_path / "stage", config)
    levels = read_levels(table, workspace)
    assert levels
    assert table.levels is not None
    assert table.levels in result.files
    finished = run_job(tmp_path / "job", coarse(), pictures(192), pictures(16), config)
    explicit = onnx.load(finished.path(finished.outcome.artifacts["model.explicit.onnx"]))
    stored = [numpy_helper.to_array(tensor) for tensor in explicit.graph.initializer]
    for array in levels.values():
        assert any(np.array_equal(array, other) for other in stored if other.dtype == np.int8)
