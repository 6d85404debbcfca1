"""Layers in blocks in the explicit graph: one operator that computes what its formula and the probes' simulation say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.algorithms.bias_correction import bias_locations, corrections, mean_outputs
from calibration.graph.layers import Layer, LayerKind, find_layers
from calibration.number_formats.block_grids import block_steps, fake_quantize_in_blocks
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.sensitivity.perturbed_model import ReferenceModel
from engine_builder.errors import BuildError
from engine_builder.qdq.emit.biases import with_corrected_biases
from engine_builder.qdq.emit.block_layers import nearest_levels, packed_blocks
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import measured_ranges, model_of, run, samples_of

BOTH = (Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS)
# Inputs of more than one block and of less than one; a Gemm with factors, a transposed weight and a bias of one row; one whose bias is one
# number; a product without a bias, and one with an Add behind it.
BLOCK = """
<ir_version: 8, opset_import: ["" : 17]>
block (float[N,3,160] x) => (float[M,5] y, float[N,3,24] other, float[M,7] third)
<float[160,24] w1, float[24] b1, float[160,24] w2, float[5,24] wg, float[1,5] bg, float[24,7] ws, float[1] bs, int64[2] rows = {-1, 24}>
{
    [first] h0 = MatMul(x, w1)
    [bias] h1 = Add(h0, b1)
    [second] other = MatMul(x, w2)
    [flat] f = Reshape(h1, rows)
    [gemm] y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (f, wg, bg)
    [scalar] third = Gemm (f, ws, bs)
}
"""
PRODUCTS = ("first", "second", "gemm", "scalar")
MODEL = model_of(BLOCK)
LAYERS = find_layers(MODEL)
FEEDS = samples_of(MODEL, count=3)
RANGES = measured_ranges(MODEL, FEEDS)


def explicit(precisions: Mapping[str, Precision], model: onnx.ModelProto = MODEL) -> onnx.ModelProto:
    return rewrite(model, LAYERS, precisions, RANGES, ONNXRUNTIME_CPU_SCHEME)


def product(x: NDArray[np.float32], weight: NDArray[np.float32], precision: Precision) -> NDArray[np.float64]:
    """Return the operator's formula: both factors rounded in blocks, exact sums."""
    steps = block_steps(weight, 0, precision)
    block = precision.weight_block or 0
    rounded = nearest_levels(weight, steps, 0, precision) * np.repeat(steps, block, axis=0)[: len(weight)].astype(np.float64)
    return np.asarray(fake_quantize_in_blocks(x, block).astype(np.float64) @ rounded)


def constant(name: str) -> NDArray[np.float32]:
    return np.asarray(onnx.numpy_helper.to_array(next(tensor for tensor in MODEL.graph.initializer if tensor.name == name)))


def close(found: NDArray[np.generic], wanted: NDArray[np.generic]) -> None:
    """Sums of 160 products in float32, and rows that a kernel divides by their step in another order of operations."""
    expected = np.asarray(wanted, dtype=np.float64)
    actual = np.asarray(found, dtype=np.float64).reshape(expected.shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("optimized", [False, True])
def test_a_product_is_what_the_formula_says(precision: Precision, optimized: bool) -> None:
    found = run(explicit({"second": precision}), FEEDS, optimized=optimized)
    close(found["other"], product(FEEDS["x"].reshape(-1, 160), constant("w2"), precision))


@pytest.mark.parametrize("precision", BOTH)
def test_a_gemm_has_its_factors_in_its_weight_and_its_bias(precision: Precision) -> None:
    found = run(explicit({"gemm": precision}), FEEDS, optimized=True)
    f = (FEEDS["x"] @ constant("w1") + constant("b1")).reshape(-1, 24).astype(np.float32)
    close(found["y"], product(f, np.float32(0.5) * constant("wg").T, precision) + 2.0 * constant("bg"))


def test_the_engine_says_whose_operator_it_has_and_keeps_the_layers_names() -> None:
    model = explicit(dict.fromkeys(PRODUCTS, Precision.INT4_WEIGHTS))
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 17), ("com.microsoft", 1)}
    assert set(PRODUCTS) <= {node.name for node in model.graph.node}
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert [node.domain for node in products] == ["com.microsoft"] * 4
    assert not {node.op_type for node in model.graph.node} & {"MatMul", "Gemm", "QuantizeLinear", "DequantizeLinear"}
    assert [tensor.name for tensor in model.graph.initializer if tensor.name in ("w1", "w2", "wg", "ws", "bg", "bs")] == []


def test_four_bits_take_an_eighth_of_the_room_of_floats() -> None:
    levels = np.zeros((3, 256), np.int8)
    assert packed_blocks(levels, Precision.INT4_WEIGHTS).nbytes == 3 * 256 // 2
    assert packed_blocks(levels, Precision.INT8_WEIGHTS).nbytes == 3 * 256


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_engine_computes_what_a_probe_simulates(name: str, precision: Precision) -> None:
    engine = explicit({name: precision})
    reference = ReferenceModel(MODEL, LAYERS, RANGES, ONNXRUNTIME_CPU_SCHEME)
    (probe,) = [one for one in reference.begin(FEEDS).probes() if one.layer.name == name]
    simulated = probe.outputs_from(probe.quantized_output(precision))
    for optimized in (False, True):
        found = run(engine, FEEDS, optimized=optimized)
        for tensor, expected in zip(("y", "other", "third"), simulated, strict=True):
            close(found[tensor], np.asarray(expected, dtype=np.float64))


def test_an_answer_does_not_depend_on_the_others_of_its_call() -> None:
    engine = explicit(dict.fromkeys(PRODUCTS, Precision.INT8_WEIGHTS))
    large = {"x": FEEDS["x"] * np.array([1, 1000, 1], np.float32)[:, None, None]}
    alone, together = (run(engine, feeds, optimized=True)["other"][0] for feeds in ({"x": FEEDS["x"][:1]}, large))
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)  # kernels of one row and of many add in another order


def test_layers_of_every_form_stand_side_by_side() -> None:
    chosen = dict(zip(PRODUCTS, (Precision.INT8, Precision.INT4_WEIGHTS, Precision.INT8_DYNAMIC, Precision.INT8_WEIGHTS), strict=True))
    engine = explicit(chosen)
    assert {"QuantizeLinear", "DynamicQuantizeLinear", "MatMulNBits"} <= {node.op_type for node in engine.graph.node}
    plain, found = run(MODEL, FEEDS, optimized=True), run(engine, FEEDS, optimized=True)
    for name in plain:
        error = float(np.sqrt(np.mean((found[name] - plain[name]) ** 2) / np.mean(plain[name] ** 2)))
        assert 1e-4 < error < 0.15  # 4 bits leave about a tenth


def test_levels_that_are_given_take_the_place_of_the_nearest() -> None:
    levels = np.full((160, 24), -8, np.int8)
    given = {("second", Precision.INT4_WEIGHTS): levels}
    engine = rewrite(MODEL, LAYERS, {"second": Precision.INT4_WEIGHTS}, RANGES, ONNXRUNTIME_CPU_SCHEME, levels=given)
    weight = constant("w2")
    steps = np.repeat(block_steps(weight, 0, Precision.INT4_WEIGHTS), 128, axis=0)[:160]
    expected = fake_quantize_in_blocks(FEEDS["x"].reshape(-1, 160), 128) @ (-8.0 * steps.astype(np.float64))
    close(run(engine, FEEDS, optimized=True)["other"], np.asarray(expected))


def test_a_corrected_bias_brings_the_mean_of_each_channel_back() -> None:
    model = model_of(BLOCK.replace("alpha = 0.5, beta = 2.0, ", ""))
    (location,) = [one for one in bias_locations(model, LAYERS) if one.layer == "gemm"]
    means = mean_outputs(model, [location], [FEEDS])
    shifts = corrections(explicit({"gemm": Precision.INT4_WEIGHTS}, model), [location], means, [FEEDS])
    corrected = explicit({"gemm": Precision.INT4_WEIGHTS}, with_corrected_biases(model, [location], shifts))
    before, after = (
        run(one, FEEDS, optimized=True)["y"].mean(axis=0) for one in (explicit({"gemm": Precision.INT4_WEIGHTS}, model), corrected)
    )
    expected = run(model, FEEDS, optimized=True)["y"].mean(axis=0)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-4)
    assert float(np.abs(before - expected).max()) > 1e-3


def test_a_layer_that_is_not_in_the_model_is_an_error() -> None:
    stranger = Layer("stranger", "MatMul", LayerKind.WEIGHTED, ("x",), "w1", 1, None, "y", ("stranger",), 1, 160 * 24)
    with pytest.raises(BuildError, match="stranger"):
        rewrite(MODEL, (*LAYERS, stranger), {"stranger": Precision.INT8_WEIGHTS}, RANGES, ONNXRUNTIME_CPU_SCHEME)
