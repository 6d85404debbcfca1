"""Outputs that no layer rounds are the float model's, also when onnxruntime moves the Q/DQ pairs behind them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import measured_ranges, model_of, samples_of, session_of

BEHIND = {
    "transposed": "t = Transpose<perm=[0,2,1]>(out)  r = Reshape(t, row)",
    "transposed twice": "t = Transpose<perm=[0,2,1]>(out)  u = Transpose<perm=[0,2,1]>(out)  r0 = Reshape(t, row)  r = Reshape(u, row)",
    "sliced": "t = Transpose<perm=[0,2,1]>(out)  c = Slice(t, zero, four, one)  r = Reshape(c, row)",
    "reshaped": "r = Reshape(out, row)",
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=list(BEHIND))
def test_an_output_is_not_rounded_for_the_layers_behind_it(behind: str) -> None:
    both = "y = Add(y0, y1)" if "r0" in behind else "y = Identity(y0)"
    second = "y1 = MatMul(r0, w)" if "r0" in behind else ""
    model = model_of(f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 4, 4] x) => (float[N, 4, 4] out, float[N, 8] y)
    <float[16, 8] w, int64[2] row = {{0, 16}}, int64[1] zero = {{0}}, int64[1] four = {{4}}, int64[1] one = {{1}}> {{
      out = Abs(x)
      {behind}
      y0 = MatMul(r, w)
      {second}
      {both}
    }}""")
    feeds = samples_of(model, 8)
    layers = find_layers(model)
    quantized = {layer.name: Precision.INT8 for layer in layers}
    explicit = rewrite(model, layers, quantized, measured_ranges(model, feeds), ONNXRUNTIME_CPU_SCHEME)
    found = session_of(explicit, optimized=True).run(["out"], feeds)[0]
    np.testing.assert_array_equal(found, np.abs(feeds["x"]))


def test_without_a_transpose_nothing_is_added() -> None:
    model = model_of("""<ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 16] x) => (float[N, 16] out, float[N, 8] y) <float[16, 8] w> {
      out = Abs(x)
      y = MatMul(out, w)
    }""")
    layers = find_layers(model)
    explicit = rewrite(
        model, layers, {layers[0].name: Precision.INT8}, measured_ranges(model, samples_of(model, 8)), ONNXRUNTIME_CPU_SCHEME
    )
    onnx.checker.check_model(explicit)
    assert not any(node.op_type == "LeakyRelu" for node in explicit.graph.node)
