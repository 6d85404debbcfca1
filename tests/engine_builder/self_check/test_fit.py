from __future__ import annotations

import dataclasses
import json

import pytest

from engine_builder.backends.gpu.catalogue import gpu_by_name, gpus_from_json
from engine_builder.backends.kernels import Kernel, KernelTensor
from engine_builder.backends.nvidia.roofline import predicted_latency
from engine_builder.errors import EngineError
from engine_builder.self_check.fit import LEAST_ERROR, Measured, Roofline, fitted_gpu, gpus_row, roofline_parts

GPU = gpu_by_name("RTX 4090")
PARTS = (Roofline(0.4, 20, 0.44), Roofline(0.2, 40, 0.28), Roofline(0.3, 30, 0.36), Roofline(0.01, 20, 0.05))


def product(size: int) -> Kernel:
    half = KernelTensor("half", (size, size))
    return Kernel("product", "gemm", ("node",), (half,), (half,), (half,))


def sizes_only() -> Kernel:
    return Kernel("sizes", "shape_call", (), (KernelTensor("int64", (1,)),), (), (KernelTensor("int64", (1,)),))


def timed(factor: float, launch_ms: float) -> list[Measured]:
    return [Measured(part, factor * part.roof_ms + launch_ms * part.launches) for part in PARTS]


def test_parts_add_up_to_the_prediction_and_count_only_what_is_launched() -> None:
    kernels = (product(512), sizes_only(), product(64))
    parts = roofline_parts(kernels, GPU, macs=512**3 + 64**3)
    assert parts.launches == 2
    assert parts.predicted_ms == pytest.approx(predicted_latency(kernels, GPU).ms)
    assert parts.roof_ms + parts.launches * GPU.launch_us / 1e3 == pytest.approx(parts.predicted_ms)


@pytest.mark.parametrize("kernel", [Kernel("named", "", (), (), (), ()), product(1)])
def test_kernels_without_sizes_are_refused(kernel: Kernel) -> None:
    with pytest.raises(EngineError, match="expected the model's 1000"):
        roofline_parts((kernel,), GPU, macs=1000)


def test_constants_of_exact_times_are_found_again() -> None:
    fitted = fitted_gpu(GPU, timed(1.5, 0.004))
    assert fitted.compute_share == pytest.approx(GPU.compute_share / 1.5, rel=0.01)  # written with three digits
    assert fitted.bandwidth_share == pytest.approx(GPU.bandwidth_share / 1.5, rel=0.01)
    assert fitted.launch_us == pytest.approx(4.0, rel=0.01)
    assert fitted.error == LEAST_ERROR


def test_times_that_do_not_fit_widen_the_error() -> None:
    exact = timed(1.0, 0.002)
    off = [
        dataclasses.replace(engine, measured_ms=engine.measured_ms * ratio)
        for engine, ratio in zip(exact, (1.4, 0.7, 1.2, 1.0), strict=True)
    ]
    assert fitted_gpu(GPU, off).error > 0.2


def test_two_engines_are_too_few() -> None:
    with pytest.raises(EngineError, match="found 2 timed engines, expected 3"):
        fitted_gpu(GPU, timed(1.0, 0.002)[:2])


def test_times_that_launches_alone_explain_tell_nothing_of_the_peaks() -> None:
    with pytest.raises(EngineError, match="do not grow with the work"):
        fitted_gpu(
            GPU, [Measured(Roofline(0.1, 20, 0.14), 0.2), Measured(Roofline(0.4, 10, 0.42), 0.1), Measured(Roofline(0.2, 15, 0.2), 0.15)]
        )


def test_the_row_keeps_what_is_published_and_reads_back_with_the_measured_constants() -> None:

    fitted = fitted_gpu(GPU, timed(1.5, 0.004))
    row = gpus_row(fitted)
    assumed = {"launch_us": 2, "compute_share": 1, "bandwidth_share": 1, "l2_factor": 3, "tile_elements": 1, "error": 0.2}
    ((read, others),) = gpus_from_json(json.dumps({"assumed": assumed, "gpus": [row]}))
    assert (read.name, read.tflops, read.source) == (GPU.name, GPU.tflops, GPU.source)
    assert (read.launch_us, read.compute_share, read.error) == (fitted.launch_us, fitted.compute_share, fitted.error)
    assert others == ("GeForce RTX 4090",)
