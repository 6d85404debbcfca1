"""Engines on processors with and without VNNI: one that is built for any x86-64 computes the same on both, one of full range does not.

The other kind is emulated by qemu, whose Haswell has AVX2 and no VNNI: ONNX Runtime takes the kernels that saturate, and they do.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision, Scheme
from engine_builder.backends.onnxruntime.integer_kernels import IntegerKernels, measured_kernels
from engine_builder.qdq.exactness import EXACT_ON, exact_on
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder import run_engines
from tests.engine_builder.fake_quantized import ATTENTION, GEMMS, OUTPUTS, RESIDUAL, Tensors, measured_ranges, model_of, run, samples_of
from tests.this_processor import EXACT_ANYWHERE, EXACT_HERE

# Weights and pictures without negative values: every pair has one sign, and every sum is large.
POSITIVE = """
<ir_version: 8, opset_import: ["" : 17]>
positive (float[N,8,6,6] x) => (float[N,10] y)
<float[16,8,3,3] w1, float[16] b1, float[32,1,3,3] w2, float[32] b2, float[8,16,1,1] w3, float[8] b3, float[288,10] w4>
{
    [square] c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    [multiplied] c2 = Conv <pads = [1, 1, 1, 1], group = 16> (c1, w2, b2)
    [grouped] c3 = Conv <group = 2> (c2, w3, b3)
    [flatten] f = Flatten(c3)
    [product] y = MatMul(f, w4)
}
"""
# The same of products alone, whose inputs are rounded at run time.
POSITIVE_PRODUCTS = """
<ir_version: 8, opset_import: ["" : 17]>
products (float[N,96] x) => (float[N,10] y)
<float[96,64] w1, float[64] b1, float[10,64] w2, float[10] b2>
{
    [first] h0 = MatMul(x, w1)
    [bias] h1 = Add(h0, b1)
    [second] y = Gemm <transB = 1> (h1, w2, b2)
}
"""
# An LSTM over steps, whose gates stay where they can be told apart.
POSITIVE_LSTM = """
<ir_version: 8, opset_import: ["" : 17]>
cell (float[T,2,96] x) => (float[T,1,2,16] y)
<float[1,64,96] w, float[1,64,16] r, float factor = {0.01}>
{
    [scaled] s = Mul(x, factor)
    [lstm] y = LSTM <hidden_size = 16> (s, w, r)
}
"""
LSTM = "positive-lstm-dynamic"
NETWORKS = {
    "residual": RESIDUAL,
    "attention": ATTENTION,
    "outputs": OUTPUTS,
    "gemms": GEMMS,
    "positive": POSITIVE,
    "positive-dynamic": POSITIVE_PRODUCTS,
    LSTM: POSITIVE_LSTM,
    "positive-int8_weights": POSITIVE_PRODUCTS,
    "positive-int4_weights": POSITIVE_PRODUCTS,
}
SATURATING = ("positive", "positive-dynamic")
BLOCKS = ("positive-int8_weights", "positive-int4_weights")  # their kernels keep pairs within 16 bits by themselves


def network(name: str) -> tuple[onnx.ModelProto, Tensors]:
    model = model_of(NETWORKS[name])
    feeds = samples_of(model)
    if name.startswith("positive"):
        for tensor in model.graph.initializer:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.abs(onnx.numpy_helper.to_array(tensor)), tensor.name))
        feeds = {key: np.abs(value) for key, value in feeds.items()}
    return model, feeds


def engine(name: str, scheme: Scheme) -> tuple[onnx.ModelProto, Tensors, dict[str, tuple[float, float]]]:
    model, feeds = network(name)
    layers = find_layers(model)
    ranges = measured_ranges(model, feeds)
    precision = {"dynamic": Precision.INT8_DYNAMIC, **{one.value: one for one in Precision}}.get(name.rpartition("-")[2], Precision.INT8)
    return rewrite(model, layers, {layer.name: precision for layer in layers}, ranges, scheme), feeds, ranges


def steps_apart(found: Tensors, expected: Tensors, ranges: dict[str, tuple[float, float]]) -> float:
    """Return the largest difference of two runs, in levels of the output's own range."""
    return max(float(np.abs(found[name] - expected[name]).max()) / ((ranges[name][1] - ranges[name][0]) / 255) for name in found)


@pytest.fixture(scope="module")
def haswell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with each network's engines, exact anywhere and of full range, and what they gave on a processor without VNNI."""
    if platform.machine() != "x86_64":
        pytest.skip(f"this is no x86-64 machine but {platform.machine()}")
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("qemu-x86_64 is not installed (Debian: qemu-user)")
    folder = tmp_path_factory.mktemp("haswell")
    for name in NETWORKS:
        for scheme, kind in ((EXACT_ANYWHERE, "bound"), (ONNXRUNTIME_CPU_SCHEME, "full")):
            explicit, feeds, _ = engine(name, scheme)
            onnx.save_model(explicit, folder / f"{name}-{kind}.onnx")
            np.savez(folder / f"{name}-{kind}.npz", allow_pickle=False, **feeds)
    command = [emulator, "-cpu", "Haswell", sys.executable, str(run_engines.__file__), str(folder)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def read(folder: Path, name: str) -> Tensors:
    with np.load(folder / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_an_engine_for_any_processor_computes_without_vnni_what_it_says(haswell: Path, name: str) -> None:
    explicit, feeds, ranges = engine(name, EXACT_ANYWHERE)
    as_written = run(explicit, feeds, optimized=False)
    # One level of the output, and what one level of an earlier tensor becomes on its way there.
    assert steps_apart(read(haswell, f"{name}-bound.plain"), as_written, ranges) <= 3


@pytest.mark.parametrize("name", NETWORKS)
def test_without_vnni_its_default_kernels_and_the_precise_ones_agree(haswell: Path, name: str) -> None:
    ranges = engine(name, EXACT_ANYWHERE)[2]
    plain, precise = (read(haswell, f"{name}-bound.{kind}") for kind in ("plain", "precise"))
    assert steps_apart(plain, precise, ranges) <= 1


@pytest.mark.parametrize("name", SATURATING)
def test_an_engine_of_full_range_saturates_without_vnni(haswell: Path, name: str) -> None:
    ranges = engine(name, ONNXRUNTIME_CPU_SCHEME)[2]
    plain, precise = (read(haswell, f"{name}-full.{kind}") for kind in ("plain", "precise"))
    assert steps_apart(plain, precise, ranges) > 20  # else the emulated processor does not saturate, and the tests above show nothing


def test_an_lstm_of_full_range_saturates_without_vnni_and_one_with_the_pair_bound_does_not(haswell: Path) -> None:
    model, feeds = network(LSTM)
    expected, ranges = run(model, feeds, optimized=True), measured_ranges(model, feeds)
    full, bound = (steps_apart(read(haswell, f"{LSTM}-{kind}.plain"), expected, ranges) for kind in ("full", "bound"))
    assert full > 5  # 10.7 measured: gates hide a part of what their sums lose
    assert bound < 1  # 0.23


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_exact_without_vnni_whatever_their_levels(haswell: Path, name: str) -> None:
    explicit, feeds, ranges = engine(name, ONNXRUNTIME_CPU_SCHEME)
    here = run(explicit, feeds, optimized=True)
    assert steps_apart(read(haswell, f"{name}-full.plain"), here, ranges) < 0.01  # sums of floats in another order, and nothing else
    assert {entry.value for entry in explicit.metadata_props if entry.key == EXACT_ON} == {exact_on(is_saturable=False)}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_engine_for_any_processor_computes_here_what_it_says(name: str) -> None:
    explicit, feeds, ranges = engine(name, EXACT_ANYWHERE)
    assert steps_apart(run(explicit, feeds, optimized=True), run(explicit, feeds, optimized=False), ranges) <= 3


@pytest.mark.parametrize("name", SATURATING)
def test_full_range_is_exact_here_if_and_only_if_the_measured_kernels_are(tmp_path: Path, name: str) -> None:
    explicit, feeds, ranges = engine(name, ONNXRUNTIME_CPU_SCHEME)
    onnx.save_model(explicit, tmp_path / "engine.onnx")
    plain, precise = (run_engines.outputs(tmp_path / "engine.onnx", feeds, is_precise=is_precise) for is_precise in (False, True))
    assert (steps_apart(plain, precise, ranges) <= 3) is (measured_kernels() is IntegerKernels.EXACT)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_engine_of_a_default_job_and_the_precise_kernels_agree_here(tmp_path: Path, name: str) -> None:
    explicit, feeds, ranges = engine(name, EXACT_HERE)
    onnx.save_model(explicit, tmp_path / "engine.onnx")
    plain, precise = (run_engines.outputs(tmp_path / "engine.onnx", feeds, is_precise=is_precise) for is_precise in (False, True))
    assert steps_apart(plain, precise, ranges) <= 1
