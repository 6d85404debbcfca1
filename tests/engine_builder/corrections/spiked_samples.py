"""A small network whose samples hold a lone large value, and the corrections of a job with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from engine_builder.records.calibrated import read_corrections
from engine_builder.records.corrections import CorrectionTable
from engine_builder.stage_io.engines import EngineJob
from tests.driver import Driver, Json, ranged, with_corrections
from tests.model_text import Array, model_from_text, samples_for

TEXT = "g (float[N,32] x) => (float[N,4] y) { a = MatMul(x, w1) r = Relu(a) y = Gemm(r, w2, b2) }"


def network() -> onnx.ModelProto:
    return model_from_text(TEXT, {"w1": (32, 16), "w2": (16, 4), "b2": (4,)})


def samples(count: int, spike: float, seed: int = 0) -> dict[str, Array]:
    """Return samples; one of them has one value that is ``spike``."""
    found = samples_for(network(), count, seed)
    found["x"][count // 2, 7] = spike
    return found


def corrected(folder: Path, calibration: Mapping[str, Array], config: Json) -> tuple[CorrectionTable, Driver, EngineJob]:
    driver, basics = ranged(folder, network(), dict(calibration), samples_for(network(), 16), config)
    job = with_corrections(driver, basics)
    return read_corrections(job.calibrated, driver.workspace), driver, job
