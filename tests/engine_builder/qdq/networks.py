"""Small networks of sizes that 8-bit and 4-bit kernels take, with the ranges that their tensors have on random samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from calibration.graph.layers import Layer, find_layers
from calibration.number_formats.precision import Precision
from engine_builder.qdq.rules.eligibility import Eligibility
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from tests.engine_builder.fake_quantized import Ranges, Tensors, measured_ranges, model_of, samples_of

# A residual block whose input is stored for conv2 and the sum, a projected one, a moved tensor, an average, and a classifier.
BLOCKS = """
<ir_version: 8, opset_import: ["" : 17]>
blocks (float[N,8,8,8] x) => (float[N,10] y)
<float[16,8,3,3] w1, float[16] b1, float[16,16,3,3] w2, float[16] b2, float[16,16,3,3] w3, float[16] b3, float[32,16,1,1] w4, float[32] b4,
 float[32,16,3,3] w5, float[32] b5, float[10,128] w6, float[10] b6, float six = {6.0}, float zero = {0.0}>
{
    [conv1] c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    [relu1] r1 = Relu(c1)
    [conv2] c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2)
    [clip2] r2 = Clip(c2, zero, six)
    [conv3] c3 = Conv <pads = [1, 1, 1, 1]> (r2, w3, b3)
    [sum1] s1 = Add(c3, r1)
    [relu3] r3 = Relu(s1)
    [pool] p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r3)
    [conv4] c4 = Conv(p, w4, b4)
    [conv5] c5 = Conv <pads = [1, 1, 1, 1]> (p, w5, b5)
    [sum2] s2 = Add(c4, c5)
    [average] a = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (s2)
    [flatten] f = Flatten(a)
    [gemm] y = Gemm <transB = 1> (f, w6, b6)
}
"""
# One attention with scaled and masked scores, a residual add that shares its input with the projections, and a matrix product after it.
ATTENTION = """
<ir_version: 8, opset_import: ["" : 17]>
attention (float[N,64,64] x) => (float[N,64,64] y)
<float[64,64] wq, float[64,64] wk, float[64,64] wv, float[64] bv, float[64,128] wu, float[128,64] wd, float root = {8.0},
 float[1,64,64] mask>
{
    [q] q0 = MatMul(x, wq)
    [k] k0 = MatMul(x, wk)
    [kt] k1 = Transpose <perm = [0, 2, 1]> (k0)
    [scores] s0 = MatMul(q0, k1)
    [scale] s1 = Div(s0, root)
    [masked] s2 = Add(s1, mask)
    [softmax] p0 = Softmax <axis = -1> (s2)
    [v] v0 = MatMul(x, wv)
    [bias] v1 = Add(v0, bv)
    [context] z0 = MatMul(p0, v1)
    [skip] r0 = Add(z0, x)
    [up] u0 = MatMul(r0, wu)
    [relu] u1 = Relu(u0)
    [down] y = MatMul(u1, wd)
}
"""
# What stays in float: a stem, a depthwise convolution, a transposed one; two outputs, one of them in the middle.
FLOATS = """
<ir_version: 8, opset_import: ["" : 17]>
floats (float[N,3,8,8] x) => (float[N,8,8,8] middle, float[N,8,16,16] y)
<float[8,3,3,3] w1, float[8,1,3,3] w2, float[8,8,1,1] w3, float[8,8,2,2] w4>
{
    [stem] middle = Conv <pads = [1, 1, 1, 1]> (x, w1)
    [depthwise] d = Conv <group = 8, pads = [1, 1, 1, 1]> (middle, w2)
    [pointwise] p = Conv (d, w3)
    [up] y = ConvTranspose <strides = [2, 2]> (p, w4)
}
"""
TEXTS = {"blocks": BLOCKS, "attention": ATTENTION, "floats": FLOATS}


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A model, its layers, samples for it, and the ranges of all of its tensors on them."""

    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    feeds: Tensors
    ranges: Ranges

    def all_in(self, precision: Precision) -> dict[str, Precision]:
        """Return the assignment that gives the precision to every layer that may take it."""
        eligibility = Eligibility(self.model, self.layers)
        return {layer.name: precision for layer in self.layers if eligibility.can_take(layer, precision)}

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)


def network(text: str) -> Network:
    model = model_of(text)
    feeds = samples_of(model, 64)
    ranges = measured_ranges(model, feeds)
    softmax = {name: (0.0, 1.0) for node in model.graph.node if node.op_type == "Softmax" for name in node.output}
    return Network(model, find_layers(model), feeds, ranges_of_moved_tensors(model, {**ranges, **softmax}))


def nodes_of(model: onnx.ModelProto) -> Mapping[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node}
