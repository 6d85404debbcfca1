"""Which layers may round their inputs at run time: matrix products, where they are a part of the work that is worth an engine."""

from __future__ import annotations

import onnx
import pytest

from calibration.graph.layers import find_layers
from calibration.number_formats.precision import Precision
from engine_builder.qdq.rules.dynamic_eligibility import OnnxRuntimeEligibility
from engine_builder.qdq.rules.eligibility import Eligibility
from tests.model_text import cnn, model_from_text
from tests.models import attention, weight_on_the_left


def dynamic_layers(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> set[str]:
    model = onnx.shape_inference.infer_shapes(model)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or node.output[0] or str(index)
    layers = find_layers(model, shapes)
    eligibility = OnnxRuntimeEligibility(model, layers)
    return {layer.name for layer in layers if eligibility.can_take(layer, Precision.INT8_DYNAMIC)}


def test_the_classifier_of_a_convolution_network_may_not() -> None:
    assert dynamic_layers(cnn(), input=(1, 1, 8, 8)) == set()


def test_weight_products_of_an_attention_may_and_its_other_products_may_not() -> None:
    found = dynamic_layers(attention())
    products = {node.output[0] for node in attention().graph.node if node.op_type in ("MatMul", "Gemm")}
    weights = {tensor.name for tensor in attention().graph.initializer}
    constant = {node.output[0] for node in attention().graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights}
    assert found == constant
    assert found < products


def test_a_weight_on_the_left_is_none() -> None:
    assert dynamic_layers(weight_on_the_left()) == set()


@pytest.mark.parametrize(("attributes", "expected"), [("", {"y"}), ("<transB=1>", {"y"}), ("<transA=1>", set())])
def test_a_gemm_may_unless_it_turns_its_input(attributes: str, expected: set[str]) -> None:
    model = model_from_text(f"g (float[8,8] x) => (float[8,8] y) {{ y = Gemm{attributes}(x, w, b) }}", {"w": (8, 8), "b": (8,)})
    assert dynamic_layers(model) == expected


def test_a_stack_of_matrices_is_none() -> None:
    text = "g (float[2,4,8] x) => (float[2,4,3] y, float[2,4,5] z) { y = MatMul(x, w)\n z = MatMul(x, v) }"
    model = model_from_text(text, {"w": (2, 8, 3), "v": (8, 5)})
    assert dynamic_layers(model) == {"z"}


def test_a_stack_of_matrices_stays_float_since_the_runtime_has_no_integer_kernel_for_it() -> None:
    model = model_from_text("g (float[4,N,8] x) => (float[4,N,3] y) { m = MatMul(x, w) y = MatMul(m, v) }", {"w": (4, 8, 8), "v": (8, 3)})
    model = onnx.shape_inference.infer_shapes(model)
    for node in model.graph.node:
        node.name = node.output[0]
    layers = find_layers(model, {"x": (4, 1, 8)})
    eligibility = OnnxRuntimeEligibility(model, layers)
    assert [layer.name for layer in layers if eligibility.can_take(layer, Precision.INT8)] == ["y"]


def test_an_lstm_may_be_dynamic_and_nothing_else_and_a_gru_is_no_layer() -> None:
    text = """g (float[T,N,8] x) => (float[T,1,N,16] y, float[T,1,N,16] z) {
        y = LSTM <hidden_size = 16> (x, w, r)
        z = GRU <hidden_size = 16> (x, v, u)
    }"""
    model = model_from_text(text, {"w": (1, 64, 8), "r": (1, 64, 16), "v": (1, 48, 8), "u": (1, 48, 16)})
    assert dynamic_layers(model, x=(5, 1, 8)) == {"y"}
    named = onnx.shape_inference.infer_shapes(model)
    for node in named.graph.node:
        node.name = node.output[0]
    layers = find_layers(named)
    assert not OnnxRuntimeEligibility(named, layers).can_take(layers[0], Precision.INT8)
    assert Eligibility(named, layers).refusal(layers[0], Precision.INT8) == "the builder has no low-precision LSTM"
