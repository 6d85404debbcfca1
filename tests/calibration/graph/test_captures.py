from __future__ import annotations

import numpy as np
import onnx

from calibration.graph.captures import hand_in_captures
from calibration.graph_passes.normalize import prepare
from tests.model_text import model_from_text, one_batch, run


def captured_softmax() -> onnx.ModelProto:
    """The converter puts a Flatten and a Reshape around a Softmax from before opset 13; here graphs inside nodes read it too."""
    return model_from_text(
        """g (float[N,4,3] x) => (float[N,4,5] y) <bool yes = {1}, int64 trips = {2}> {
            s = Softmax<axis=1>(x)
            chosen = If(yes) <
                then_branch = then () => (float[N,4,3] t) { t = Neg(s) },
                else_branch = other () => (float[N,4,3] e) {
                    e = Loop(trips, yes, s) <
                        body = step (int64 i, bool c, float[N,4,3] state) => (bool going, float[N,4,3] next) {
                            going = Identity(c)
                            next = Add(state, s)
                        }
                    >
                }
            >
            y = MatMul(chosen, w)
        }""",
        {"w": (3, 5)},
        opset=11,
    )


def test_a_captured_tensor_does_not_stop_the_conversion_of_its_producer() -> None:
    model = captured_softmax()
    feeds = one_batch(model)
    np.testing.assert_allclose(run(prepare(model).model, feeds)[0], run(model, feeds)[0], rtol=1e-5, atol=1e-6)  # float32 rounding


def test_each_captured_tensor_is_copied_once() -> None:
    model = captured_softmax()
    before = model.graph.node[0].SerializeToString()
    hand_in_captures(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Softmax", "Identity", "If", "MatMul"]
    assert model.graph.node[0].SerializeToString() == before
    inner = [node for attribute in model.graph.node[2].attribute for node in attribute.g.node]
    assert {name for node in inner for name in node.input} >= {"s_handed_in"}
    assert "s" not in {name for node in inner for name in node.input}


def test_a_graph_that_captures_nothing_is_left_alone() -> None:
    model = model_from_text("g (float[N,4] x) => (float[N,4] y) { a = Relu(x)  y = Neg(a) }")
    before = model.SerializeToString()
    hand_in_captures(model.graph)
    assert model.SerializeToString() == before
