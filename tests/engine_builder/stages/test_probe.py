"""The stages that probe the float model see layers as engines will have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from calibration.number_formats.precision import Precision
from engine_builder.pipeline.stage_table import SENSITIVITY, TRIAL
from engine_builder.records.calibrated import layer_precisions_of
from engine_builder.records.loss_files import read_losses
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
