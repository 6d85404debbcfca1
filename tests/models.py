"""Models that must work: the plain ones and, by the trait that makes each of them so, the awkward ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser

from tests.model_text import CNN_WEIGHTS, ModelMaker, cnn, dynamic_axes, fixed_batch, halved, model_from_text


def odd_names() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] "in put/1:0", float[N,6] "ünï.code") => (float[N,3] "out:0") {
            "sum of/both" = Add("in put/1:0", "ünï.code")
            "out:0" = MatMul("sum of/both", w)
        }""",
        {"w": (6, 3)},
    )


def opset_9() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,1,8,8] input) => (float[N,3] logits) {
            c = Conv<pads=[1,1,1,1]>(input, w1, b1)
            a = Clip<min=0.0, max=6.0>(c)
            m = ReduceMean<axes=[2,3], keepdims=1>(a)
            s = Squeeze<axes=[2,3]>(m)
            logits = Gemm<transB=1>(s, w3, b3)
        }""",
        CNN_WEIGHTS,
        opset=9,
        ir_version=4,
    )


def opset_10() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,1,8,8] input) => (float[N,3] probabilities)
        <float[4] scales = {1.0, 1.0, 2.0, 2.0}> {
            up = Resize<mode="nearest">(input, scales)
            c = Conv<pads=[1,1,1,1]>(up, w1, b1)
            top = GlobalMaxPool(c)
            flat = Flatten(top)
            scores = Gemm<transB=1>(flat, w3, b3)
            probabilities = Softmax<axis=1>(scores)
        }""",
        CNN_WEIGHTS,
        opset=10,
        ir_version=5,
    )


def opset_11() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x) => (float[N,6] y)
        <float six = {6.0}, float zero = {0.0}> {
            wide = Unsqueeze<axes=[1]>(x)
            product = MatMul(wide, w)
            a = Clip(product, zero, six)
            narrow = Squeeze<axes=[1]>(a)
            total = ReduceSum<axes=[1], keepdims=1>(narrow)
            scaled = Mul(narrow, total)
            y = Softmax<axis=1>(scaled)
        }""",
        {"w": (6, 6)},
        opset=11,
        ir_version=6,
    )


def shared_weight() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x) => (float[N,6] y) {
            a = Gemm(x, w, b)
            r = Relu(a)
            c = Gemm(r, w, b)
            y = Add(c, b)
        }""",
        {"w": (6, 6), "b": (6,)},
    )


def weight_behind_constant() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,2] x) => (float[N,2] y) {
            w = Constant<value = float[2,2] {0.5, -1.0, 0.25, 2.0}>()
            same = Identity(w)
            y = MatMul(x, same)
        }"""
    )


def weight_behind_transpose() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x) => (float[N,4] y)
        <int64[2] shape = {6, 4}> {
            turned = Transpose<perm=[1,0]>(w)
            shaped = Reshape(turned, shape)
            exact = Cast<to=1>(shaped)
            y = MatMul(x, exact)
        }""",
        {"w": (4, 6)},
    )


def several_outputs() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x) => (float[N,4] hidden, float[N,3] logits, int64[N] best) {
            before = Gemm(x, w1, b1)
            hidden = Relu(before)
            logits = Gemm(hidden, w2, b2)
            best = ArgMax<axis=1, keepdims=0>(logits)
        }""",
        {"w1": (6, 4), "b1": (4,), "w2": (4, 3), "b2": (3,)},
    )


def input_called_labels() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x, float[N,6] labels) => (float[N,3] y) {
            s = Sub(x, labels)
            y = MatMul(s, w)
        }""",
        {"w": (6, 3)},
    )


def batch_norm() -> onnx.ModelProto:
    model = model_from_text(
        """g (float[N,1,8,8] x) => (float[N,4,8,8] y) {
            c = Conv<pads=[1,1,1,1]>(x, w)
            n = BatchNormalization<epsilon=0.001>(c, gamma, beta, mean, variance)
            y = Relu(n)
        }""",
        {"w": (4, 1, 3, 3), "gamma": (4,), "beta": (4,), "mean": (4,)},
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0.5, 1.0, 2.0, 0.1], np.float32), "variance"))
    return model


def pad_before_conv() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,1,8,8] x) => (float[N,4,4,4] y)
        <int64[4] spatial = {0, 0, 1, 1}, int64[1] end = {4}> {
            front = ConstantOfShape<value = int64[1] {0}>(end)
            pads = Concat<axis=0>(front, spatial)
            padded = Pad(x, pads)
            y = Conv<strides=[2,2]>(padded, w)
        }""",
        {"w": (4, 1, 3, 3)},
    )


def conv_transpose() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,4,8,8] x) => (float[N,2,16,16] y)
        <float zero = {0.0}> {
            up = ConvTranspose<strides=[2,2]>(x, w, b)
            y = Clip(up, zero)
        }""",
        {"w": (4, 2, 2, 2), "b": (2,)},
    )


def gemm_factors() -> onnx.ModelProto:
    return model_from_text(
        """g (float[6,N] x) => (float[N,3] y) {
            turned = Transpose<perm=[1,0]>(x)
            back = Transpose<perm=[1,0]>(turned)
            y = Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(back, w, b)
        }""",
        {"w": (3, 6), "b": (3,)},
    )


def attention() -> onnx.ModelProto:
    """Embedding, one attention head with a mask, a decomposed GELU, and a residual add."""
    return model_from_text(
        """g (int64[N,T] ids, float[N,T] mask) => (float[N,T,8] y)
        <float one = {1.0}, float half = {0.5}, float root = {1.4142135}, float low = {-10000.0}, int64[1] axis = {1}> {
            x = Gather<axis=0>(table, ids)
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v0 = MatMul(x, wv)
            v = Add(v0, bv)
            kt = Transpose<perm=[0,2,1]>(k)
            scores = MatMul(q, kt)
            gone = Sub(one, mask)
            penalty = Mul(gone, low)
            wide = Unsqueeze(penalty, axis)
            masked = Add(scores, wide)
            weights = Softmax<axis=2>(masked)
            mixed = MatMul(weights, v)
            first = Add(mixed, x)
            up = MatMul(first, wu)
            ratio = Div(up, root)
            erf = Erf(ratio)
            shifted = Add(erf, one)
            product = Mul(up, shifted)
            gelu = Mul(product, half)
            down = MatMul(gelu, wd)
            y = Add(first, down)
        }""",
        {"table": (4, 8), "wq": (8, 8), "wk": (8, 8), "wv": (8, 8), "bv": (8,), "wu": (8, 16), "wd": (16, 8)},
    )


def weight_on_the_left() -> onnx.ModelProto:
    return model_from_text("g (float[N,6,5] x) => (float[N,4,5] y) { y = MatMul(w, x) }", {"w": (4, 6)})


def if_subgraph() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,6] x) => (float[N,4] y)
        <float zero = {0.0}> {
            h = MatMul(x, w)
            total = ReduceSum<keepdims=0>(h)
            positive = Greater(total, zero)
            y = If(positive) <
                then_branch = yes () => (float[N,4] a) { a = Add(h, b) },
                else_branch = no () => (float[N,4] c) { d = MatMul(x, w) c = Relu(d) }
            >
        }""",
        {"w": (6, 4), "b": (4,)},
    )


def loop_subgraph() -> onnx.ModelProto:
    return model_from_text(
        """g (float[N,4] x) => (float[N,4] y)
        <int64 trips = {3}, bool go = {1}> {
            h = MatMul(x, w)
            y = Loop(trips, go, h) <
                body = step (int64 i, bool c, float[N,4] state) => (bool c_out, float[N,4] next) {
                    c_out = Identity(c)
                    more = MatMul(state, w)
                    next = Tanh(more)
                }
            >
        }""",
        {"w": (4, 4)},
    )


def duplicate_node_names() -> onnx.ModelProto:
    """Standard ONNX, but onnxruntime itself refuses it."""
    model = cnn()
    for node in model.graph.node[:4]:
        node.name = "same"
    return model


def overridable_initializers() -> onnx.ModelProto:
    """As IR version 3 demands: every initializer is listed as a graph input too."""
    model = model_from_text("g (float[N,6] x) => (float[N,3] y) { y = Gemm(x, w, b) }", {"w": (6, 3), "b": (3,)}, opset=9, ir_version=3)
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return model


def local_function() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {0.5, -1.0, 0.25, 2.0}, float[2] b = {0.1, -0.2}> {
            h = local.dense(x, w, b)
            y = local.dense(h, w, b)
        }
        <domain: "local", opset_import: ["" : 17]>
        dense (x, w, b) => (y) {
            p = MatMul(x, w)
            s = Add(p, b)
            y = Relu(s)
        }"""
    )


def fp16() -> onnx.ModelProto:
    """Half precision throughout, inputs and outputs too."""
    model = halved(cnn(), onnx.TensorProto.FLOAT16)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


def fp16_inside() -> onnx.ModelProto:
    """Half precision inside, float32 at the ends; the hidden output is half precision."""
    text = """g (float[N,6] x) => (float[N,3] logits, float16[N,4] hidden) {
        narrow = Cast<to=10>(x)
        before = MatMul(narrow, w1)
        hidden = Relu(before)
        moved = Add(hidden, offset)
        out = MatMul(moved, w2)
        logits = Cast<to=1>(out)
    }"""
    return halved(model_from_text(text, {"w1": (6, 4), "offset": (4,), "w2": (4, 3)}), onnx.TensorProto.FLOAT16)


def bf16_inside() -> onnx.ModelProto:
    """Standard ONNX, but onnxruntime has no such kernels on a CPU."""
    text = """g (float[N,6] x) => (float[N,3] y) {
        narrow = Cast<to=16>(x)
        product = MatMul(narrow, w)
        y = Cast<to=1>(product)
    }"""
    return halved(model_from_text(text, {"w": (6, 3)}), onnx.TensorProto.BFLOAT16)


AWKWARD: Mapping[str, ModelMaker] = {
    maker.__name__: maker
    for maker in (
        cnn,
        fixed_batch,
        dynamic_axes,
        odd_names,
        opset_9,
        opset_10,
        opset_11,
        shared_weight,
        weight_behind_constant,
        weight_behind_transpose,
        several_outputs,
        input_called_labels,
        batch_norm,
        pad_before_conv,
        conv_transpose,
        gemm_factors,
        attention,
        weight_on_the_left,
        if_subgraph,
        loop_subgraph,
        overridable_initializers,
        local_function,
        fp16,
        fp16_inside,
    )
}
