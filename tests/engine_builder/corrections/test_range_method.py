"""The method of ranges chosen for a whole network, as a stage of jobs on small models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from calibration.ranges.range_table import RangeTable
from engine_builder.corrections.range_method import FEWEST_SAMPLES
from engine_builder.records.calibrated import read_ranges
from engine_builder.records.corrections import OF_NETWORKS, Correction, CorrectionTable
from tests.driver import Json, run_job
from tests.engine_builder.corrections.spiked_samples import corrected, network, samples

LOGITS: Json = {"outputs": {"y": "logits"}, "precisions": ["int8"]}


def tried(table: CorrectionTable) -> list[Correction]:
    return [entry for entry in table.tried if entry.what in OF_NETWORKS]


@pytest.mark.parametrize("metric", ["fidelity", "agreement"])
def test_a_value_that_makes_steps_coarse_is_left_out_by_default(tmp_path: Path, metric: str) -> None:
    table, driver, job = corrected(tmp_path, samples(64, 150.0), {**LOGITS, "accuracy": {"metric": metric}})
    kept = [entry for entry in tried(table) if entry.kept]
    assert len(kept) == 1
    assert kept[0].loss_after < 0.5 * kept[0].loss_before
    assert kept[0].loss_after == min(entry.loss_after for entry in tried(table))
    assert kept[0].where == ("MatMul_a", "Gemm_y")
    low, high = read_ranges(job.calibrated, driver.workspace).ranges["x"]
    assert high < 100.0
    assert (low, high) == table.ranges["x"]
    assert read_ranges(replace(job.calibrated, corrections=None), driver.workspace).ranges["x"][1] == 150.0


def test_the_method_that_the_user_names_is_kept(tmp_path: Path) -> None:
    table, driver, job = corrected(tmp_path, samples(64, 150.0), {**LOGITS, "calibration": {"method": "minmax"}})
    assert tried(table) == []
    assert read_ranges(job.calibrated, driver.workspace).ranges["x"][1] == 150.0


def test_ranges_without_outliers_stay_min_max(tmp_path: Path) -> None:
    even = {"x": np.random.default_rng(0).uniform(-1, 1, (64, 32)).astype(np.float32)}
    table, _, _ = corrected(tmp_path, even, LOGITS)
    assert "x" not in table.ranges


def test_outputs_that_are_values_choose_nothing(tmp_path: Path) -> None:
    table, _, _ = corrected(tmp_path, samples(64, 150.0), {"outputs": {"y": "values"}, "precisions": ["int8"]})
    assert tried(table) == []


def test_too_few_samples_choose_nothing(tmp_path: Path) -> None:
    table, _, _ = corrected(tmp_path, samples(FEWEST_SAMPLES - 1, 150.0), LOGITS)
    assert tried(table) == []


def test_formats_that_reach_far_keep_what_they_share(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt-rtx builder (the extra rtx)")
    table, _, _ = corrected(tmp_path, samples(64, 150.0), {**LOGITS, "precisions": ["int8", "fp8"], "target": "tensorrt-rtx", "gpu": "L4"})
    assert tried(table) == []


def test_values_beyond_fp16_stay_in_the_range(tmp_path: Path) -> None:
    """Or an engine would compute what is beyond it in FP16."""
    _, driver, job = corrected(tmp_path, samples(64, 1e5), LOGITS)
    table = driver.workspace.read_value(RangeTable, job.calibrated.ranges)
    assert read_ranges(job.calibrated, driver.workspace).ranges["x"] == table.ranges["x"]


def test_the_job_ships_what_fits_with_the_other_ranges(tmp_path: Path) -> None:
    config: Json = {**LOGITS, "accuracy": {"metric": "fidelity", "min_relative": 0.97}}
    finished = run_job(tmp_path, network(), samples(64, 150.0), samples(32, 1.0, seed=3), config)
    kept = [item for item in cast(Sequence[Json], finished.report["repairs"]) if item["kept"]]
    assert any(item["what"] in {kind.value for kind in OF_NETWORKS} for item in kept)
    explicit = onnx.load(finished.path(finished.outcome.artifacts["model.explicit.onnx"]))
    scales = [float(onnx.numpy_helper.to_array(tensor)) for tensor in explicit.graph.initializer if tensor.name == "x_scale"]
    assert len(scales) == 1
    assert scales[0] < 100.0 / 255
