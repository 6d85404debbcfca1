"""The stages that probe the float model see layers as engines will have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.number_formats.precision import Precision
from calibration.sensitivity.layer_losses import LayerLosses
from engine_builder.pipeline.stage_table import SENSITIVITY, TRIAL
from engine_builder.records.calibrated import layer_precisions_of
from engine_builder.records.loss_files import read_losses, write_losses
from engine_builder.stage_io.engines import EngineJob, TrialRequest
from engine_builder.stage_io.measuring import SensitivityRequest
from tests.driver import Driver, inspection_of, ranged, with_corrections
from tests.model_text import Array, model_from_text

CHANNELS = 16
SAMPLES = 96
DEPTHWISE = "Conv_d"


def folded() -> onnx.ModelProto:
    """A depthwise convolution with a BatchNorm folded in, of channels that hardly vary: large weights, outputs that the bias dominates."""
    model = model_from_text(
        f"""g (float[N,{CHANNELS},10,10] x) => (float[N,5] y)
        <float zero = {{0.0}}, float six = {{6.0}}> {{
            d = Conv<pads=[1,1,1,1], group={CHANNELS}>(x, wd, bd)
            a = Clip(d, zero, six)
            p = Conv(a, wp, bp)
            r = Relu(p)
            pooled = GlobalAveragePool(r)
            flat = Flatten(pooled)
            y = Gemm(flat, wg, bg)
        }}""",
        {"wp": (12, CHANNELS, 1, 1), "bp": (12,), "wg": (12, 5), "bg": (5,)},
    )
    rng = np.random.default_rng(1)
    filters = rng.normal(size=(CHANNELS, 1, 3, 3)) / deviations()[:, None, None, None] / 1.5
    bias = 2.0 - filters.sum(axis=(1, 2, 3)) * means()
    for name, array in (("wd", filters), ("bd", bias)):
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return model


def means() -> Array:
    return np.linspace(0.4, 0.6, CHANNELS)


def deviations() -> Array:
    return np.geomspace(0.015, 0.2, CHANNELS)


def samples(count: int, seed: int) -> dict[str, Array]:
    x = means()[:, None, None] + deviations()[:, None, None] * np.random.default_rng(seed).normal(size=(count, CHANNELS, 10, 10))
    return {"x": np.abs(x).astype(np.float32)}


def single_loss(driver: Driver, job: EngineJob, name: str) -> float:
    """Return the loss that the probes find of a layer."""
    of = job.calibrated
    result = driver.run(SENSITIVITY, SensitivityRequest(of, 0, SAMPLES))
    wanted = layer_precisions_of(inspection_of(driver, job).model.layers, of.eligible)
    losses = read_losses((result.losses,), wanted, driver.workspace)
    place = next(index for index, item in enumerate(wanted) if item.layer == name)
    return float(losses.loss[:, place].mean())


def test_a_layer_that_its_bias_correction_mends_is_probed_with_it(tmp_path: Path) -> None:
    driver, plain = ranged(tmp_path, folded(), samples(SAMPLES, 0), samples(64, 1))
    weight = next(tensor for tensor in folded().graph.initializer if tensor.name == "wd")
    assert np.abs(numpy_helper.to_array(weight)).max() > 60.0
    job = with_corrections(driver, plain)
    built = driver.run(TRIAL, TrialRequest(job, {DEPTHWISE: Precision.INT8}, 1, "test"))
    assert built.bias is not None
    assert built.bias.kept
    assert built.loss is not None
    assert single_loss(driver, plain, DEPTHWISE) > 4.0 * built.loss
    assert built.loss / 1.5 < single_loss(driver, job, DEPTHWISE) < built.loss * 1.5


def test_later_shares_probe_what_earlier_ones_leave_open(tmp_path: Path) -> None:
    driver, job = ranged(tmp_path, folded(), samples(SAMPLES, 0), samples(64, 1))
    of = job.calibrated
    wanted = layer_precisions_of(inspection_of(driver, job).model.layers, of.eligible)
    first = driver.run(SENSITIVITY, SensitivityRequest(of, 0, 16))
    assert first.probed == len(wanted)
    scores = sorted(read_losses((first.losses,), wanted, driver.workspace).mean)
    allowed = (scores[0] + scores[1]) / 8.0  # of a quarter to four times that, none to two fit: the most lossy of three is out of it
    second = driver.run(SENSITIVITY, SensitivityRequest(of, 16, 32, (first.losses,), allowed))
    assert 0 < second.probed < len(wanted)
    both = read_losses((first.losses, second.losses), wanted, driver.workspace)
    assert sorted(both.counts.tolist()) == [16] * (len(wanted) - second.probed) + [32] * second.probed


def test_a_share_that_would_decide_nothing_probes_nothing(tmp_path: Path) -> None:
    driver, job = ranged(tmp_path, folded(), samples(SAMPLES, 0), samples(64, 1))
    of = job.calibrated
    wanted = layer_precisions_of(inspection_of(driver, job).model.layers, of.eligible)
    assert len(wanted) == 3
    noise = 1.0 + 1e-3 * np.random.default_rng(0).normal(size=(16, 3))
    clear = LayerLosses(wanted, noise * [1e-3, 1.0, 1e3], np.eye(3), np.eye(3))
    earlier = (write_losses(clear, "clear.npz", driver.workspace),)
    found = driver.run(SENSITIVITY, SensitivityRequest(of, 16, 32, earlier, 1.0))
    assert (found.probed, found.providers) == (0, {})
    assert read_losses((*earlier, found.losses), wanted, driver.workspace).samples == 16
