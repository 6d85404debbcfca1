"""Models are raised to the opset that their types need, and stay what they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engine_builder.errors import BuildError
from engine_builder.qdq.graph.opsets import at_opset
from tests.model_text import model_from_text, one_batch, run

TEXT = """g (float[N,32] x) => (float[N,1] y) {
    a = MatMul(x, w)
    y = ReduceMean<axes=[1], keepdims=1>(a)
}"""


@pytest.mark.parametrize("opset", [17, 19, 21, 22])
def test_a_raised_model_computes_the_same_with_every_node_named(opset: int) -> None:
    model = model_from_text(TEXT, {"w": (32, 32)})
    before = model.SerializeToString()
    raised = ir.to_proto(at_opset(model, opset))
    onnx.checker.check_model(raised, full_check=True)
    assert raised.opset_import[0].version == opset
    assert [value.name for value in raised.graph.input] == ["x"]
    assert all(node.name for node in raised.graph.node)
    feeds = one_batch(model)
    np.testing.assert_array_equal(run(raised, feeds)[0], run(model, feeds)[0])
    assert model.SerializeToString() == before


def test_a_later_opset_is_left_as_it_is() -> None:
    model = model_from_text("g (float[N,32] x) => (float[N,32] y) { y = MatMul(x, w) }", {"w": (32, 32)}, opset=22, ir_version=10)
    assert at_opset(model, 19).opset_imports[""] == 22


def test_big_weights_are_shared_with_the_model() -> None:
    model = model_from_text(TEXT, {"w": (32, 32)})
    weight = at_opset(model, 21).graph.initializers["w"].const_value
    assert isinstance(weight, ir.TensorProtoTensor)
    assert weight.raw is model.graph.initializer[0]


def test_an_operator_that_cannot_be_converted_is_told() -> None:
    model = model_from_text("g (float[N,32] x) => (float[N,32] y) { y = NoSuchOperator(x) }")
    with pytest.raises(BuildError, match="cannot be converted from opset 17 to 21"):
        at_opset(model, 21)
