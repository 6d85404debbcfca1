"""Second-order weights as a part of the stage ``repair``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.codec import value_from_json
from calibration.data.dataset import CalibrationSet, load_saved
from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from engine_builder.corrections.rounding_choice import round_weights
from engine_builder.records.corrections import RepairKind, RepairTable, read_levels
from engine_builder.records.inspection import Inspection
from engine_builder.stages.correct import split
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace
from tests.driver import Json, inspection_of, ranged, run_job
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
    found = inspection_of(driver, basics)
    return onnx.load(driver.workspace.path(found.prepared)), found, load_saved(driver.workspace.path(found.calibration))


def test_four_bit_weights_that_help_are_kept_with_their_gain(tmp_path: Path) -> None:
    model, found, data = prepared(tmp_path, samples(192, correlated=True))
    decisions = [Decision(layer.name, Precision.INT4) for layer in found.layers]
    fitted, held_out = split(192, 1, seed=0)
    levels, tried = round_weights(model, found, decisions, {}, TENSORRT_SCHEME, (), data, fitted, held_out)
    assert {entry.where[0] for entry in tried} == {layer.name for layer in found.layers}
    assert all(entry.what is RepairKind.SECOND_ORDER for entry in tried)
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
    decisions = [Decision(layer.name, Precision.INT4) for layer in found.layers[:1]]
    levels, tried = round_weights(model, found, decisions, {}, TENSORRT_SCHEME, (), data, fitted, held_out)
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


def repaired(folder: Path, config: Json) -> tuple[RepairTable, StageContext, Json]:
    driver, basics = ranged(folder, coarse(), pictures(192), pictures(16), config)
    result = driver.run("repair", basics)
    table = value_from_json(RepairTable, driver.workspace.read_json(value_from_json(FileRef, result["repairs"])))
    return table, StageContext(Workspace(driver.workspace.root), folder, lambda fraction, message: None), result


def test_eight_bit_weights_are_tried_only_where_a_job_asks_for_it(tmp_path: Path) -> None:
    asked, _, _ = repaired(tmp_path / "asked", {"calibration": {"second_order": ["int8"]}})
    assert [entry.what for entry in asked.tried].count(RepairKind.SECOND_ORDER) == 2
    unasked: dict[str, Json] = {"default": {}, "none": {"calibration": {"second_order": []}}}
    for name, config in unasked.items():
        table, _, _ = repaired(tmp_path / name, config)
        assert RepairKind.SECOND_ORDER not in [entry.what for entry in table.tried]
        assert table.levels is None


def test_kept_levels_go_through_a_file_that_the_stage_names_into_the_engine(tmp_path: Path) -> None:
    config: Json = {"calibration": {"second_order": ["int8"]}, "accuracy": {"min_relative": 0.3}, "search": {"max_trials": 2}}
    table, context, result = repaired(tmp_path / "stage", config)
    levels = read_levels(table, context)
    assert levels
    assert table.levels is not None
    assert table.levels.sha256 in {cast(Json, ref)["sha256"] for ref in cast(Sequence[object], result["named"])}
    finished = run_job(tmp_path / "job", coarse(), pictures(192), pictures(16), config)
    explicit = onnx.load(finished.path(cast(Json, finished.outcome["artifacts"])["model.explicit.onnx"]))
    stored = [numpy_helper.to_array(tensor) for tensor in explicit.graph.initializer]
    for array in levels.values():
        assert any(np.array_equal(array, other) for other in stored if other.dtype == np.int8)
