"""Ranges chosen by measurement, and second-order weights, as stages of whole jobs on small models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx

from engine_builder.qdq.rules.placement import tensors_of_one_range
from engine_builder.records.calibrated import read_ranges
from engine_builder.records.corrections import Correction, CorrectionKind, CorrectionTable
from engine_builder.stage_io.engines import EngineJob
from tests.driver import Driver, Json, run_job
from tests.engine_builder.corrections.spiked_samples import corrected, network, samples
from tests.model_text import model_from_text


def of_kind(table: CorrectionTable, kind: CorrectionKind) -> list[Correction]:
    return [entry for entry in table.tried if entry.what is kind]


def spiked(folder: Path, method: str) -> tuple[CorrectionTable, Driver, EngineJob]:
    """Return the corrections of a job whose samples hold one value fifty times as large as the others."""
    return corrected(folder, samples(192, 150.0), {"calibration": {"method": method}})


def test_a_range_that_a_lone_value_spoils_is_replaced_with_its_gain(tmp_path: Path) -> None:
    table, driver, basics = spiked(tmp_path, "best")
    kept = [entry for entry in of_kind(table, CorrectionKind.RANGE) if entry.kept]
    assert kept
    assert kept[0].loss_after < 0.5 * kept[0].loss_before
    assert kept[0].loss_before - kept[0].loss_after > 2 * kept[0].gain_error
    low, high = table.ranges["x"]
    assert high - low < 100.0
    assert read_ranges(basics.calibrated, driver.workspace).ranges["x"] == (low, high)
    assert read_ranges(replace(basics.calibrated, corrections=None), driver.workspace).ranges["x"][1] == 150.0


def test_other_methods_choose_nothing_by_measurement(tmp_path: Path) -> None:
    table, _, _ = spiked(tmp_path, "minmax")
    assert of_kind(table, CorrectionKind.RANGE) == []
    assert table.ranges == {}


def test_ranges_without_outliers_stay_min_max(tmp_path: Path) -> None:
    even = {"x": np.random.default_rng(0).uniform(-1, 1, (192, 32)).astype(np.float32)}
    table, _, _ = corrected(tmp_path, even, {"calibration": {"method": "best"}})
    assert "x" not in table.ranges


def test_values_beyond_fp16_stay_in_the_range(tmp_path: Path) -> None:
    """Where none of the samples that a method is fitted to holds them, too."""
    table, _, _ = corrected(tmp_path, samples(192, 1e5), {"calibration": {"method": "best"}})
    assert "x" not in table.ranges


def test_two_runs_choose_the_same(tmp_path: Path) -> None:
    first, second = (spiked(tmp_path / name, "best")[0] for name in "ab")
    assert first == second


def test_ranges_chosen_for_a_job_are_those_of_its_engine(tmp_path: Path) -> None:
    config: Json = {"calibration": {"method": "best"}, "accuracy": {"min_relative": 0.3}, "search": {"max_trials": 2}}
    finished = run_job(tmp_path, network(), samples(192, 150.0), samples(32, 1.0, seed=3), config)
    assert "range" in [item["what"] for item in cast(Sequence[Json], finished.report["repairs"])]
    explicit = onnx.load(finished.path(finished.outcome.artifacts["model.explicit.onnx"]))
    scales = [float(onnx.numpy_helper.to_array(tensor)) for tensor in explicit.graph.initializer if tensor.name == "x_scale"]
    assert len(scales) == 1
    assert scales[0] < 100.0 / 255


def test_moved_tensors_have_one_range_with_the_tensor_that_they_are_moved_from() -> None:
    text = "g (float[N,4] x) => (float[N,2] y) { a = Relu(x) b = Identity(a) c = Transpose <perm = [0, 1]> (b) y = MatMul(c, w) }"
    model = model_from_text(text, {"w": (4, 2)})
    assert tensors_of_one_range(model, ["a", "c", "y"]) == {"a": ("a", "c"), "y": ("y",)}
    assert tensors_of_one_range(model, ["c", "y"]) == {"c": ("c",), "y": ("y",)}
