"""Dynamic layers in the explicit graph: standard operators, fused by onnxruntime, that compute what the probes' simulation does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from calibration.algorithms.bias_correction import bias_locations, corrections, mean_outputs
from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.sensitivity.perturbed_model import ReferenceModel
from engine_builder.qdq.emit.biases import with_corrected_biases
from engine_builder.qdq.exactness import engine_exact_on
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.qdq.rules.dynamic_eligibility import OnnxRuntimeEligibility
from tests.engine_builder.fake_quantized import Tensors, measured_ranges, model_of, run, samples_of, session_of
from tests.this_processor import EXACT_ANYWHERE, EXACT_HERE

# Three products of one tensor, with a bias on either side of the sum and without one; a Gemm with factors behind a reshape.
BLOCK = """
<ir_version: 8, opset_import: ["" : 17]>
block (float[N,4,16] x) => (float[M,5] y, float[N,4,8] other)
<float[16,8] wq, float[8] bq, float[16,8] wk, float[8] bk, float[16,8] wv, float[5,8] wg, float[1,5] bg, int64[2] rows = {-1, 8}>
{
    [q] q0 = MatMul(x, wq)
    [q_bias] q1 = Add(bq, q0)
    [k] k0 = MatMul(x, wk)
    [k_bias] k1 = Add(k0, bk)
    [v] other = MatMul(x, wv)
    [sum] s = Add(q1, k1)
    [relu] r = Relu(s)
    [flat] f = Reshape(r, rows)
    [gemm] y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (f, wg, bg)
}
"""
PRODUCTS = ("q", "k", "v", "gemm")
MODEL = model_of(BLOCK)
LAYERS = find_layers(MODEL)
FEEDS = samples_of(MODEL, count=2)
RANGES = measured_ranges(MODEL, FEEDS)
DYNAMIC = dict.fromkeys(PRODUCTS, Precision.INT8_DYNAMIC)


def explicit(precisions: Mapping[str, Precision]) -> onnx.ModelProto:
    return rewrite(MODEL, LAYERS, precisions, RANGES, EXACT_HERE)


def fused(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Return the operators that onnxruntime runs with its default optimizations."""
    session_of(model, optimized=True, dump=folder / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def of_the_block(tensors: Tensors) -> list[np.ndarray]:
    return [tensors["y"], tensors["other"]]


def test_the_engine_has_standard_operators_alone_and_the_layers_names() -> None:
    model = explicit(DYNAMIC)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    assert set(PRODUCTS) <= {node.name for node in model.graph.node}
    assert not {node.op_type for node in model.graph.node} & {"MatMul", "Gemm", "QuantizeLinear", "DequantizeLinear"}


def test_layers_that_read_one_tensor_share_its_rounding() -> None:
    rounded = [node.input[0] for node in explicit(DYNAMIC).graph.node if node.op_type == "DynamicQuantizeLinear"]
    assert rounded == ["x", "f"]


def test_onnxruntime_fuses_each_product_with_its_scales_and_its_bias(tmp_path: Path) -> None:
    ops = fused(explicit(DYNAMIC), tmp_path)
    assert (ops["DynamicQuantizeLinear"], ops["MatMulIntegerToFloat"], ops["DynamicQuantizeMatMul"]) == (1, 3, 1)
    assert not ops.keys() & {"MatMulInteger", "Cast", "Mul", "MatMul", "Gemm"}
    assert ops["Add"] == 1  # that of two computed tensors: the biases are inside


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_engine_computes_what_a_probe_simulates(name: str) -> None:
    engine = explicit({name: Precision.INT8_DYNAMIC})
    reference = ReferenceModel(MODEL, LAYERS, RANGES, EXACT_HERE)
    (probe,) = [one for one in reference.begin(FEEDS).probes() if one.layer.name == name]
    y, other = probe.outputs_from(probe.quantized_output(Precision.INT8_DYNAMIC))
    for optimized in (False, True):
        found = run(engine, FEEDS, optimized=optimized)
        # The same integers; the sums of up to sixteen float products against one product of their sum.
        np.testing.assert_allclose(found["y"].reshape(-1), np.asarray(y, dtype=np.float32).reshape(-1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["other"].reshape(-1), np.asarray(other, dtype=np.float32).reshape(-1), rtol=1e-4, atol=1e-5)


def test_all_at_once_stay_near_the_float_model_and_move() -> None:
    plain, found = run(MODEL, FEEDS, optimized=True), run(explicit(DYNAMIC), FEEDS, optimized=True)
    for before, after in zip(of_the_block(plain), of_the_block(found), strict=True):
        error = float(np.sqrt(np.mean((after - before) ** 2) / np.mean(before**2)))
        assert 1e-4 < error < 0.05  # 8 bits leave about a percent


@pytest.mark.parametrize("name", ["q", "gemm"])
def test_a_corrected_bias_brings_the_mean_of_each_channel_back(name: str) -> None:
    """Of a MatMul with a bias behind it, and of a Gemm with one inside."""
    model = with_output(model_of(BLOCK.replace("alpha = 0.5, beta = 2.0, ", "")), {"q": "q1", "gemm": "y"}[name])
    (location,) = [one for one in bias_locations(model, LAYERS) if one.layer == name]
    means = mean_outputs(model, [location], [FEEDS])
    rounded = rewrite(model, LAYERS, {name: Precision.INT8_DYNAMIC}, {}, EXACT_HERE)
    shifts = corrections(rounded, [location], means, [FEEDS])
    corrected = rewrite(with_corrected_biases(model, [location], shifts), LAYERS, {name: Precision.INT8_DYNAMIC}, {}, EXACT_HERE)
    before, after, wanted = (channel_means(one) for one in (rounded, corrected, model))
    assert np.abs(before - wanted).max() > 1e-4
    np.testing.assert_allclose(after, wanted, atol=2e-6)  # float32 means of eight rows


def with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return copy


def channel_means(model: onnx.ModelProto) -> np.ndarray:
    (values,) = run(model, FEEDS, optimized=False).values()
    return np.asarray(values.reshape(-1, values.shape[-1]).mean(axis=0))


def test_no_range_is_needed() -> None:
    without = rewrite(MODEL, LAYERS, DYNAMIC, {}, EXACT_HERE)
    assert without.SerializeToString() == explicit(DYNAMIC).SerializeToString()


def test_the_range_is_that_of_the_call() -> None:
    """Inputs a thousand times those that were measured are rounded no worse."""
    large = {name: value * np.float32(1000) for name, value in FEEDS.items()}
    expected, found = run(MODEL, large, optimized=True)["other"], run(explicit(DYNAMIC), large, optimized=True)["other"]
    static = run(explicit(dict.fromkeys(PRODUCTS, Precision.INT8)), large, optimized=True)["other"]
    scale = float(np.abs(expected).max())
    assert np.abs(found - expected).max() < 0.03 * scale
    assert np.abs(static - expected).max() > 0.5 * scale


def test_static_and_dynamic_layers_stand_side_by_side(tmp_path: Path) -> None:
    model = explicit({"q": Precision.INT8, "k": Precision.INT8_DYNAMIC, "sum": Precision.INT8, "gemm": Precision.INT8_DYNAMIC})
    onnx.checker.check_model(model, full_check=True)
    plain, found = run(MODEL, FEEDS, optimized=True), run(model, FEEDS, optimized=True)
    assert np.abs(found["y"] - plain["y"]).max() < 0.05 * np.abs(plain["y"]).max()
    np.testing.assert_array_equal(found["other"], plain["other"])
    ops = fused(model, tmp_path)
    assert ops["DynamicQuantizeMatMul"] == 2


def test_an_engine_with_the_pair_bound_is_exact_anywhere_and_says_so(tmp_path: Path) -> None:
    for scheme, start in ((EXACT_ANYWHERE, "any x86-64"), (ONNXRUNTIME_CPU_SCHEME, "x86-64 processors with VNNI")):
        onnx.save_model(rewrite(MODEL, LAYERS, DYNAMIC, {}, scheme), tmp_path / "engine.onnx")
        assert str(engine_exact_on(tmp_path / "engine.onnx")).startswith(start)


def test_only_products_with_a_matrix_on_the_right_may_be_dynamic() -> None:
    eligibility = OnnxRuntimeEligibility(MODEL, LAYERS)
    assert {layer.name for layer in LAYERS if eligibility.can_take(layer, Precision.INT8_DYNAMIC)} == set(PRODUCTS)
    assert all(eligibility.can_take(layer, Precision.INT8) for layer in LAYERS)
    assert not any(eligibility.can_take(layer, Precision.INT4) for layer in LAYERS)
