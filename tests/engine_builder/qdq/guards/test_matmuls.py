"""Quantized products with a bias behind them: integers in onnxruntime, whatever sizes it knows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision, Scheme
from engine_builder.qdq.guards.matmuls import KeepQuantizedMatmuls
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import measured_ranges, model_of, run, samples_of, session_of

SIZES = {"fixed": "4, 6, 16", "dynamic": "N, 6, 16", "matrix": "N, 16", "fixed matrix": "4, 16"}


def product(sizes: str) -> onnx.ModelProto:
    """Return sigmoid(x @ w + b) @ v, with the bias first in the sum."""
    out = sizes.replace("16", "8")
    return model_of(f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[{sizes}] x) => (float[{out}] y) <float[16, 32] w, float[32] b, float[32, 8] v> {{
      [first] p = MatMul(x, w)
      s = Add(b, p)
      a = Sigmoid(s)
      [second] y = MatMul(a, v)
    }}""")


def explicit(
    model: onnx.ModelProto, quantized: tuple[str, ...] = ("first", "second"), scheme: Scheme = ONNXRUNTIME_CPU_SCHEME
) -> onnx.ModelProto:
    ranges = measured_ranges(model, samples_of(model, 4))
    return rewrite(model, find_layers(model), dict.fromkeys(quantized, Precision.INT8), ranges, scheme)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=list(SIZES))
def test_quantized_products_run_in_integers(sizes: str, tmp_path: Path) -> None:
    session_of(explicit(product(sizes)), optimized=True, dump=tmp_path / "optimized.onnx")
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert found["MatMulIntegerToFloat"] == 2
    assert not found.keys() & {"Gemm", "MatMul", "FusedMatMul", "DequantizeLinear"}


def test_a_sum_that_is_quantized_at_once_stays_an_integer_gemm(tmp_path: Path) -> None:
    model = model_of("""<ir_version: 8, opset_import: ["" : 17]>
    net (float[4, 6, 16] x) => (float[4, 6, 8] y) <float[16, 32] w, float[32] b, float[32, 8] v> {
      [first] p = MatMul(x, w)
      s = Add(p, b)
      [second] y = MatMul(s, v)
    }""")
    session_of(explicit(model), optimized=True, dump=tmp_path / "optimized.onnx")
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert (found["QGemm"], found["MatMulIntegerToFloat"], found["Gemm"]) == (1, 1, 0)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=list(SIZES))
def test_keeping_products_changes_no_value_and_no_shape(sizes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = product(sizes)
    feeds = samples_of(model, 4)
    found = run(explicit(model), feeds, optimized=False)
    monkeypatch.setattr(KeepQuantizedMatmuls, "call", lambda _self, unchanged: ir.passes.PassResult(unchanged, modified=False))
    np.testing.assert_array_equal(found["y"], run(explicit(model), feeds, optimized=False)["y"])


@pytest.mark.parametrize(
    ("sizes", "quantized", "scheme"),
    [
        (SIZES["dynamic"], ("first", "second"), ONNXRUNTIME_CPU_SCHEME),  # a vector lets onnxruntime fuse it with a Gelu
        (SIZES["fixed"], ("second",), ONNXRUNTIME_CPU_SCHEME),
        (SIZES["matrix"], ("second",), ONNXRUNTIME_CPU_SCHEME),
        (SIZES["fixed"], ("first", "second"), TENSORRT_SCHEME),
    ],
)
def test_biases_are_left_alone_where_nothing_would_fuse_them(sizes: str, quantized: tuple[str, ...], scheme: Scheme) -> None:
    model = explicit(product(sizes), quantized, scheme)
    assert "b" in {tensor.name for tensor in model.graph.initializer}
    assert "LeakyRelu" not in {node.op_type for node in model.graph.node}


def test_a_bias_beside_a_dead_channel_is_not_clipped() -> None:
    model = model_of("""<ir_version: 8, opset_import: ["" : 17]>
    net (float[4, 6, 16] x) => (float[4, 6, 8] y) <float[16, 32] w, float[32] b, float[32, 8] v> {
      [first] p = MatMul(x, w)
      s = Add(p, b)
      [second] y = MatMul(s, v)
    }""")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    dead = onnx.numpy_helper.to_array(weight).copy()
    dead[:, 0] = 0.0
    weight.CopyFrom(onnx.numpy_helper.from_array(dead, "w"))
    feeds = {name: np.float32(0.01) * value for name, value in samples_of(model, 4).items()}
    layers = find_layers(model)
    quantized = {layer.name: Precision.INT8 for layer in layers}
    written = rewrite(model, layers, quantized, measured_ranges(model, feeds), ONNXRUNTIME_CPU_SCHEME)
    engine, plain = (session_of(written, optimized=optimized).run(None, feeds)[0] for optimized in (True, False))
    np.testing.assert_allclose(engine, plain, atol=0.02 * np.abs(plain).max())  # a value on the edge of two levels may fall either way
