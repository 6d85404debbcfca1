"""Models that must be refused, by the reason."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from tests.model_text import ModelMaker, cnn, model_from_text
from tests.models import loop_subgraph


def quantize_linear() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x) => (float[N,3] y)
        <float scale = {0.1}, uint8 zero = {128}> {
            q = QuantizeLinear(x, scale, zero)
            d = DequantizeLinear(q, scale, zero)
            y = MatMul(d, w)
        }""",
        {"w": (6, 3)},
    )


def dequantized_weight() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,2] x) => (float[N,2] y)
        <int8[2,2] q = {1, 2, 3, 4}, float scale = {0.1}> {
            w = DequantizeLinear(q, scale)
            y = MatMul(x, w)
        }"""
    )


def qlinear_conv() -> onnx.ModelProto:
    return model_from_text(
        """g (uint8[N,1,8,8] x) => (uint8[N,1,8,8] y)
        <float s = {0.1}, uint8 z = {128}, uint8[1,1,1,1] w = {3}> { y = QLinearConv(x, s, z, w, s, z, s, z) }"""
    )


def conv_integer() -> onnx.ModelProto:
    return model_from_text("g (uint8[N,1,8,8] x) => (int32[N,1,8,8] y) <uint8[1,1,1,1] w = {3}> { y = ConvInteger(x, w) }")


def matmul_integer() -> onnx.ModelProto:
    return model_from_text("g (uint8[N,2] x) => (int32[N,2] y) <uint8[2,2] w = {1, 2, 3, 4}> { y = MatMulInteger(x, w) }")


def dynamic_quantize() -> onnx.ModelProto:
    return model_from_text("g (float[N,2] x) => (uint8[N,2] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }")


def narrow_weight() -> onnx.ModelProto:
    model = model_from_text("g (float[N,2] x) => (float[N,2] y) { w = Cast<to=1>(packed) y = MatMul(x, w) }", opset=21, ir_version=10)
    model.graph.initializer.append(onnx.helper.make_tensor("packed", onnx.TensorProto.INT4, [2, 2], [1, 2, 3, 4]))
    return model


def custom_domain() -> onnx.ModelProto:
    model = model_from_text("g (float[N,6] x) => (float[N,3] y) { h = MatMul(x, w) y = com.example.Magic(h) }", {"w": (6, 3)})
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    return model


def unknown_operator() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { h = MatMul(x, w) y = Flurb(h) }", {"w": (6, 3)})


def operator_of_a_later_opset() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { h = MatMul(x, w) y = Gelu(h) }", {"w": (6, 3)}, opset=17)


def no_layer() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,6] y) { a = Relu(x) y = Sigmoid(a) }")


def layers_in_a_subgraph_only() -> onnx.ModelProto:
    model = loop_subgraph()
    model.graph.node.remove(model.graph.node[0])
    model.graph.node[0].input[2] = "x"
    return model


def float64() -> onnx.ModelProto:
    model = model_from_text("g (double[N,6] x) => (double[N,3] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((6, 3)), "w"))
    return model


def opset_too_new() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": (6, 3)}, opset=99)


def opset_too_old() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": (6, 3)}, opset=6)


def ir_version_too_new() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": (6, 3)}, ir_version=99)


def sparse_weight() -> onnx.ModelProto:
    model = model_from_text("g (float[N,2] x) => (float[N,2] y) { y = MatMul(x, w) }")
    values = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [3.0])
    indices = onnx.helper.make_tensor("w_indices", onnx.TensorProto.INT64, [1], [2])
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [2, 2]))
    return model


def no_nodes() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,6] x) { }")


def no_inputs() -> onnx.ModelProto:
    return model_from_text("g () => (float[2,2] y) <float[2,2] a = {1, 2, 3, 4}> { y = MatMul(a, a) }")


def string_input() -> onnx.ModelProto:
    return model_from_text("g (string[N] words, float[N,6] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": (6, 3)})


def bfloat16_input() -> onnx.ModelProto:
    return model_from_text("g (bfloat16[N,6] x) => (float[N,3] y) { f = Cast<to=1>(x) y = MatMul(f, w) }", {"w": (6, 3)})


def sequence_input() -> onnx.ModelProto:
    return model_from_text(
        "g (seq(float[N,6]) x) => (float[N,3] y) { one = Constant<value_int=0>() f = SequenceAt(x, one) y = MatMul(f, w) }", {"w": (6, 3)}
    )


def only_scalars() -> onnx.ModelProto:
    return model_from_text("g (float t) => (float[6,3] y) { y = Mul(t, w) }", {"w": (6, 3)})


def dangling_tensor() -> onnx.ModelProto:
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { h = MatMul(x, w) y = Relu(nowhere) }", {"w": (6, 3)})


def wrong_weight_size() -> onnx.ModelProto:
    model = cnn()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    return model


def inner_sizes_differ() -> onnx.ModelProto:
    """Standard ONNX in form, but the matrix product cannot be computed."""
    return model_from_text("g (float[N,6] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": (5, 3)})


UNUSABLE: Mapping[str, ModelMaker] = {
    maker.__name__: maker
    for maker in (
        quantize_linear,
        dequantized_weight,
        qlinear_conv,
        conv_integer,
        matmul_integer,
        dynamic_quantize,
        narrow_weight,
        custom_domain,
        unknown_operator,
        operator_of_a_later_opset,
        no_layer,
        layers_in_a_subgraph_only,
        float64,
        opset_too_new,
        opset_too_old,
        ir_version_too_new,
        sparse_weight,
        no_nodes,
        no_inputs,
        string_input,
        bfloat16_input,
        sequence_input,
        only_scalars,
        dangling_tensor,
        wrong_weight_size,
        inner_sizes_differ,
    )
}
