"""SmoothQuant scalings are judged on as few samples as leave no doubt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.data.dataset import load_saved
from calibration.onnx_model.model_io import read_model
from engine_builder.corrections.method import Bench, InUse
from engine_builder.corrections.smooth_quant_choice import LOOKS, choose_smooth_quants
from engine_builder.records.calibrated import layer_precisions_of, read_ranges
from engine_builder.records.corrections import Correction
from engine_builder.stages.correct import split
from tests.driver import inspection_of, ranged
from tests.model_text import model_from_text, samples_for

TEXT = """g (float[N,32] x, float[N,32] z) => (float[N,4] y) {
  a = MatMul(x, w1)
  b = MatMul(z, w2)
  both = Add(a, b)
  y = Gemm(both, w3, b3)
}"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Correction]:
    """One input has a channel that is large on every sample; what the other feeds is next to nothing beside it."""
    network = model_from_text(TEXT, {"w1": (32, 32), "w2": (32, 32), "w3": (32, 4), "b3": (4,)})
    calibration = samples_for(network, 200)
    calibration["x"][:, 3] *= 40.0
    calibration["z"] *= np.float32(1e-3)
    driver, job = ranged(tmp_path_factory.mktemp("job"), network, calibration, samples_for(network, 16))
    prepared, of = inspection_of(driver, job).model, job.calibrated
    data = load_saved(driver.workspace.path(of.calibration))
    fitted, held_out = split(data.samples, 1, seed=0)
    bench = Bench(
        read_model(driver.workspace.path(prepared.file)),
        prepared,
        layer_precisions_of(prepared.layers, of.eligible),
        data,
        fitted,
        held_out,
    )
    _, found = choose_smooth_quants(bench, InUse(read_ranges(of, driver.workspace).ranges), lambda share, what: None)
    return {layer: correction for correction in found for layer in correction.where}


def test_a_scaling_that_clearly_helps_is_kept_before_all_samples_are_seen(tried: dict[str, Correction]) -> None:
    first = tried["MatMul_a"]
    assert first.kept
    assert first.samples == LOOKS[1]
    assert first.loss_after < first.loss_before


def test_what_loses_next_to_nothing_is_looked_at_once_and_left_alone(tried: dict[str, Correction]) -> None:
    second = tried["MatMul_b"]
    assert not second.kept
    assert second.samples == LOOKS[0]


def test_parts_are_whole_batches_and_cover_what_is_held_out(tmp_path: Path) -> None:
    network = model_from_text("g (float[4,8] x) => (float[4,2] y) { y = MatMul(x, w1) }", {"w1": (8, 2)})
    driver, job = ranged(tmp_path, network, samples_for(network, 200), samples_for(network, 16))
    prepared, of = inspection_of(driver, job).model, job.calibrated
    data = load_saved(driver.workspace.path(of.calibration))
    fitted, held_out = split(data.samples, prepared.batch, seed=0)
    bench = Bench(
        read_model(driver.workspace.path(prepared.file)),
        prepared,
        layer_precisions_of(prepared.layers, of.eligible),
        data,
        fitted,
        held_out,
    )
    parts = bench.held_out_parts((6, 20))
    assert prepared.is_batch_fixed
    assert [len(part) % 4 for part in parts] == [0] * len(parts)
    np.testing.assert_array_equal(np.concatenate(parts), held_out)
