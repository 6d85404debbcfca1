"""The predicted latency follows its formula, and every millisecond of it belongs to a node."""

from __future__ import annotations

import dataclasses

import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.gpu.catalogue import Gpu, gpu_by_name
from engine_builder.backends.kernel_work import work_of
from engine_builder.backends.kernels import Kernel, KernelTensor
from engine_builder.backends.nvidia.roofline import PredictedLatency, kernel_milliseconds, predicted_latency
from engine_builder.errors import EngineError


def kernel(kind: str, inputs: str, constants: str, outputs: str, *, nodes: tuple[str, ...] = (), name: str = "k") -> Kernel:
    """Return a kernel from tensors written as ``half 8,16`` and separated by bars."""

    def tensors(text: str) -> tuple[KernelTensor, ...]:
        parts = [part.split() for part in text.split("|") if part.strip()]
        return tuple(KernelTensor(dtype, tuple(int(size) for size in shape.split(","))) for dtype, shape in parts)

    return Kernel(name, kind, nodes, tensors(inputs), tensors(constants), tensors(outputs))


CONV = kernel(
    "correlation", "half 8,32,16,16|half 8,64,16,16", "half 64,32,3,3|float 1|half 1,64,1,1", "half 8,64,16,16", nodes=("conv", "add")
)
ROUND = Gpu(
    "round figures", (8, 9), 10, 1, 100, 1, {"fp32": 1, "fp16": 10, "bf16": 10, "int8": 20}, "made up", 2.0, 0.5, 0.5, 4.0, 4096, 0.25
)  # fmt: skip


@pytest.mark.parametrize(
    ("case", "macs"),
    [
        (CONV, 8 * 64 * 16 * 16 * 32 * 9),
        (kernel("correlation", "half 8,32,16,16", "half 32,1,3,3|half 1,32,1,1", "half 8,32,16,16"), 8 * 32 * 16 * 16 * 9),
        (kernel("correlation", "half 8,4,9,9|half 1,4,3,3", "float 1", "half 8,1,9,9"), 8 * 9 * 9 * 4 * 9),
        (kernel("deconv", "half 8,16,8,8", "half 16,4,2,2|float 1", "half 8,4,16,16"), 8 * 16 * 8 * 8 * 4 * 4),
        (kernel("gemm", "int8 8,64", "int8 64,96|float 1", "half 8,96"), 8 * 64 * 96),
        (kernel("gemm", "half 256,64", "half 3,64,32", "half 3,256,32"), 3 * 256 * 64 * 32),
        (kernel("gemm", "int8 32,50,16|int8 32,16,70", "float 1", "half 32,50,70"), 32 * 50 * 16 * 70),
        (kernel("runtime_fusion", "half 32,64", "half 2,96|int4 64,96|half 1,96", "half 32,96"), 32 * 64 * 96),
        (
            kernel("kgen", "half 32,50,16|half 32,16,70|bool 8,1,1,70|half 32,70,16", "", "half 32,50,16", name="_gemm_mha_v2_myl0_2"),
            2 * 32 * 50 * 70 * 16,
        ),
        (kernel("kgen", "half 8,64", "half 1,64", "half 8,64"), 0),
    ],
)
def test_multiply_accumulates_follow_from_the_sizes(case: Kernel, macs: int) -> None:
    assert work_of(case).macs == macs


def test_lookup_reads_the_rows_it_returns_not_the_whole_table() -> None:
    assert work_of(kernel("kgen", "int64 8,32", "half 30522,384", "half 8,32,384")).constant_bytes == 8 * 32 * 384 * 2


def test_int4_weights_are_half_a_byte_each_and_multiplied_in_fp16() -> None:
    work = work_of(kernel("runtime_fusion", "half 32,64", "int4 64,96", "half 32,96"))
    assert (work.constant_bytes, work.math) == (64 * 96 / 2, Precision.FP16)


def test_both_factors_must_be_quantized_for_low_precision_arithmetic() -> None:
    both = kernel("gemm", "int8 8,64", "int8 64,96", "half 8,96")
    weight = kernel("gemm", "half 8,64", "int8 64,96", "half 8,96")
    assert (work_of(both).math, work_of(weight).math) == (Precision.INT8, Precision.FP16)


def test_time_of_a_kernel_that_computes_is_operations_over_the_reached_peak() -> None:
    large = kernel("gemm", "half 4096,4096", "half 4096,4096", "half 4096,4096")
    expected_ms = 2 * 4096**3 / (10e12 * 0.5) * 1e3 + 2e-3
    assert kernel_milliseconds([large], ROUND)[0] == pytest.approx(expected_ms)


def test_product_with_few_outputs_keeps_few_multiprocessors_busy() -> None:
    narrow = kernel("gemm", "half 64,65536", "half 65536,128", "half 64,128")
    computing = 2 * 64 * 128 * 65536 / (10e12 * 0.5)  # were all of the 10 multiprocessors busy; 2 tiles keep 2 busy
    assert kernel_milliseconds([narrow], ROUND)[0] == pytest.approx(computing * 5 * 1e3 + 2e-3)


@pytest.mark.parametrize(("rows", "busy"), [("1", 5), ("2,16", 5), ("2,32", 5), ("128", 10)])
def test_few_rows_are_spread_over_all_columns(rows: str, busy: int) -> None:
    product = kernel("gemm", f"half {rows},65536", "half 65536,320", f"half {rows},320")  # five tiles of 64 columns
    gpu = dataclasses.replace(ROUND, bandwidth_gb_s=1e6)  # so that it computes
    expected = 2 * work_of(product).macs / (10e12 * 0.5 * busy / 10)
    assert kernel_milliseconds([product], gpu)[0] == pytest.approx(expected * 1e3 + 2e-3)


def test_columns_are_the_weights_however_the_output_is_cut_into_heads() -> None:
    heads = kernel("runtime_fusion", "half 1,8,64", "int4 64,96|half 2,96", "half 1,6,8,16")
    assert work_of(heads).columns == 96


def test_a_product_of_two_computed_tensors_has_no_columns() -> None:
    assert work_of(kernel("gemm", "int8 32,50,16|int8 32,16,70", "float 1", "half 32,50,70")).columns == 0


@pytest.mark.parametrize("kind", ["int8", "fp8", "int4"])
def test_a_matrix_times_one_vector_takes_as_long_as_its_weights_are_large(kind: str) -> None:
    gpu = gpu_by_name("RTX 4090")
    data = "half" if kind == "int4" else kind
    half = kernel("gemm", "half 1,8192", "half 8192,8192", "half 1,8192")
    quantized = kernel("gemm", f"{data} 1,8192", f"{kind} 8192,8192", "half 1,8192")
    small = dataclasses.replace(gpu, l2_mb=1.0)  # so that weights come from memory
    assert predicted_latency([half], small).ms / predicted_latency([quantized], small).ms == pytest.approx(
        4 if kind == "int4" else 2, rel=0.2
    )  # but for the launch and the vectors


def test_time_of_a_kernel_that_moves_is_bytes_over_the_reached_bandwidth() -> None:
    copied = kernel("kgen", "float 1000000", "", "half 1000000")
    assert kernel_milliseconds([copied], ROUND)[0] == pytest.approx(6e6 / (100e9 * 0.5) * 1e3 + 2e-3)


def test_what_fits_into_the_cache_is_read_there() -> None:
    small, weights = kernel("kgen", "float 1000", "", "float 1000"), kernel("gemm", "half 8,1024", "half 1024,1024", "half 8,1024")
    alone, crowded = kernel_milliseconds([small], ROUND)[0], kernel_milliseconds([small, weights], ROUND)
    assert alone == pytest.approx(8000 / (4 * 50e9) * 1e3 + 2e-3)
    assert crowded[0] == pytest.approx(alone)  # its own tensors still fit, next to weights that do not
    assert crowded[1] == pytest.approx((2 * 2**20 / 50e9 + 32 * 1024 / (4 * 50e9)) * 1e3 + 2e-3)


def test_range_is_the_gpus_error() -> None:
    found = predicted_latency([CONV], ROUND)
    assert (found.low_ms, found.high_ms) == pytest.approx((0.75 * found.ms, 1.25 * found.ms))


def test_range_around_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 <= low"):
        PredictedLatency(1.0, 1.1, 1.2)


def test_low_precision_that_needs_more_kernels_is_not_predicted_to_win() -> None:
    quantized = [
        kernel("correlation", "int8 8,32,16,16", "int8 64,32,3,3|float 1,64,1,1", "float 8,64,16,16"),
        kernel("kgen", "float 8,64,16,16|int8 8,64,16,16", "half 1,64,1,1", "int8 8,64,16,16"),
    ]
    gpu = gpu_by_name("RTX 4090")
    assert predicted_latency(quantized, gpu).ms > predicted_latency([CONV], gpu).ms


def test_what_runs_on_the_cpu_takes_no_time_on_the_gpu() -> None:
    assert predicted_latency([kernel("shape_call", "", "", ""), kernel("ShapeHostToDevice", "", "", "int64 1")], ROUND).ms == 0


def test_open_size_is_refused_with_the_kernels_name() -> None:
    with pytest.raises(EngineError, match=r"'unsized'.*open sizes"):
        predicted_latency([kernel("kgen", "half -1,64", "", "half -1,64", name="unsized")], ROUND)


def test_unknown_number_format_is_refused() -> None:
    with pytest.raises(EngineError, match="found 'posit'"):
        predicted_latency([kernel("kgen", "posit 8", "", "half 8")], ROUND)


def test_arithmetic_that_a_gpu_lacks_is_refused_with_both_names() -> None:
    with pytest.raises(EngineError, match="fp8, which round figures"):
        predicted_latency([kernel("gemm", "fp8 8,64", "fp8 64,96", "half 8,96")], ROUND)


def test_measured_constants_change_the_prediction() -> None:
    slow = dataclasses.replace(ROUND, launch_us=10.0)
    assert predicted_latency([CONV], slow).ms - predicted_latency([CONV], ROUND).ms == pytest.approx(8e-3)
