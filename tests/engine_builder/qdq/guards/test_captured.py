"""A graph inside a node may read what a quantized layer made and others moved: onnxruntime must not stumble over the pair."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import session_of
from tests.model_text import model_from_text, run, samples_for

MOVED = {"reshaped": "Reshape(c, two)", "transposed": "Transpose<perm=[0,2,3,1]>(c)", "as it is": "Identity(c)"}


@pytest.mark.parametrize(("moved", "parted"), list(zip(MOVED.values(), (True, True, False), strict=True)), ids=list(MOVED))
def test_a_captured_tensor_behind_a_quantized_layer_opens_and_computes(moved: str, *, parted: bool) -> None:
    model = model_from_text(
        f"""g (float[N,2,4,4] x) => (float[N,M] y)
        <int64[2] two = {{0, -1}}, int64[1] one = {{1}}, int64[1] end = {{2}}, int64[1] few = {{5}}> {{
            c = Conv<pads=[1,1,1,1]>(x, w)
            r = {moved}
            s = Shape(r)
            size = Slice(s, one, end)
            row = Greater(size, few)
            many = Squeeze(row)
            chosen = If(many) <
                then_branch = then () => (float[] t) {{ t = Neg(r) }}, else_branch = other () => (float[] e) {{ e = Abs(r) }}
            >
            y = Flatten(chosen)
        }}""",
        {"w": (3, 2, 3, 3)},
    )
    prepared = prepare(model).model
    feeds = samples_for(model, 8)
    layers = find_layers(prepared)
    ranges = {"x": (-4.0, 4.0), "c": (-8.0, 8.0)}
    explicit = rewrite(prepared, layers, {layers[0].name: Precision.INT8}, ranges, ONNXRUNTIME_CPU_SCHEME)
    assert any(node.op_type == "LeakyRelu" for node in explicit.graph.node) is parted
    engine = session_of(explicit, optimized=True).run(None, feeds)[0]
    np.testing.assert_allclose(engine, run(explicit, feeds)[0], atol=16 / 255)  # a value on the edge of two levels may fall either way
