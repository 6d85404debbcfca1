"""The reference for explicit graphs: four small models, and their fake quantization computed node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from calibration.graph.layers import Layer
from calibration.number_formats.grids import fake_quantize_activation
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision, Scheme
from calibration.number_formats.weight_scales import weight_step
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors

Tensors = dict[str, NDArray[Any]]  # of the model's number types
Ranges = dict[str, tuple[float, float]]

# Residual block with a quantized or float skip, moved tensors, a tensor that several layers read, an average.
RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
residual (float[N,3,8,8] x) => (float[N,5] y)
<float[4,3,3,3] w1, float[4] b1, float[4,4,3,3] w2, float[4] b2, float[4,4,1,1] w3, float[4] b3, float[5,16] w4, float[5] b4,
 float six = {6.0}, float zero = {0.0}>
{
    [conv1] c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    [relu1] r1 = Relu(c1)
    [conv2] c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2)
    [clip2] r2 = Clip(c2, zero, six)
    [conv3] c3 = Conv(r1, w3, b3)
    [add] s = Add(r2, c3)
    [relu3] r3 = Relu(s)
    [pool] p = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (r3)
    [flatten] f = Flatten(p)
    [gemm] y = Gemm <transB = 1> (f, w4, b4)
}
"""
# Products of two computed tensors, a 3-d weight product, a softmax that stays float, an Add of a bias that is no layer.
ATTENTION = """
<ir_version: 8, opset_import: ["" : 17]>
attention (float[N,4,6] x) => (float[N,4,6] y)
<float[6,6] wq, float[6,6] wk, float[6,6] wv, float[6] bv>
{
    [q] q0 = MatMul(x, wq)
    [k] k0 = MatMul(x, wk)
    [kt] k1 = Transpose <perm = [0, 2, 1]> (k0)
    [scores] s0 = MatMul(q0, k1)
    [softmax] p0 = Softmax <axis = -1> (s0)
    [v] v0 = MatMul(x, wv)
    [bias] v1 = Add(v0, bv)
    [context] z0 = MatMul(p0, v1)
    [skip] y = Add(z0, x)
}
"""
# A layer output that is a graph output and is read further, a graph input that several readers share, transposed and grouped convolutions.
OUTPUTS = """
<ir_version: 8, opset_import: ["" : 17]>
outputs (float[N,4,5,5] x) => (float[N,4,5,5] a, float[N,4,7,7] b, float[N,4,5,5] c)
<float[4,1,3,3] w1, float[4] b1, float[4,2,3,3] w2, float[4] b2>
{
    [depthwise] a = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w1, b1)
    [transposed] b = ConvTranspose <group = 2> (a, w2, b2)
    [sum] c = Add(a, x)
}
"""
# A Gemm with factors and a bias that is no row; names that the Q/DQ nodes would like to have.
GEMMS = """
<ir_version: 8, opset_import: ["" : 17]>
gemms (float[N,6] x) => (float[N,3] y)
<float[6,4] w1, float[1,4] b1, float[4,3] w2, float b2, float x_scale = {1.5}>
{
    [first] h0 = Gemm <alpha = 0.5, beta = 2.0> (x, w1, b1)
    [x_zero_point] h1 = Mul(h0, x_scale)
    [second] y = Gemm <beta = 3.0> (h1, w2, b2)
}
"""
MODELS = {"residual": RESIDUAL, "attention": ATTENTION, "outputs": OUTPUTS, "gemms": GEMMS}


def model_of(text: str, seed: int = 0) -> onnx.ModelProto:
    """Return the model with weights drawn at random: every tensor that the text declares with its shape alone."""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for value in model.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(rng.standard_normal(shape) * 0.5, dtype=np.float32), value.name))
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model)


def samples_of(model: onnx.ModelProto, count: int = 16) -> Tensors:
    rng = np.random.default_rng(1)
    (value,) = model.graph.input
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
    return {value.name: rng.standard_normal((count, *shape)).astype(np.float32)}


def run_node(node: onnx.NodeProto, inputs: Tensors) -> list[NDArray[np.generic]]:
    """Return the outputs of one node, run alone."""
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in inputs.items()
    ]
    made = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output]
    graph = helper.make_graph([node], "one", given, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return list(session_of(model, optimized=False).run(None, inputs))


def interpret(
    model: onnx.ModelProto,
    feeds: Tensors,
    quantized: Sequence[Layer] = (),
    ranges: Mapping[str, tuple[float, float]] | None = None,
    scheme: Scheme | None = None,
) -> Tensors:
    """Return every tensor, computed node by node, with the fake quantization that the cases of ``rewrite`` list."""
    by_node = {layer.name: layer for layer in quantized}
    rounded_outputs = {layer.output for layer in quantized if scheme is not None and layer.op_type in scheme.quantized_outputs}
    ranges = ranges_of_moved_tensors(model, ranges or {})
    tensors: Tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer} | feeds

    def rounded(name: str) -> NDArray[np.float32]:
        symmetric = scheme is not None and scheme.symmetric_activations
        return fake_quantize_activation(np.asarray(tensors[name], dtype=np.float32), *ranges[name], bits=8, symmetric=symmetric)

    for node in model.graph.node:
        inputs = {name: tensors[name] for name in node.input if name}
        layer = by_node.get(node.name)
        if layer is not None:
            inputs |= {name: rounded(name) for name in layer.inputs}
            if layer.weight is not None:
                inputs[layer.weight] = rounded_weight(np.asarray(tensors[layer.weight], dtype=np.float32), layer, scheme)
        found = run_node(node, inputs)
        for name, value in zip(node.output, found, strict=True):
            tensors[name] = np.asarray(value)
            if name in rounded_outputs:
                tensors[name] = rounded(name)
    return tensors


def rounded_weight(weight: NDArray[np.float32], layer: Layer, scheme: Scheme | None) -> NDArray[np.float32]:
    step = weight_step(weight, layer, Precision.INT8, scheme or ONNXRUNTIME_CPU_SCHEME)
    return np.asarray(np.clip(np.round(weight / step), -127, 127) * step, dtype=np.float32)


def measured_ranges(model: onnx.ModelProto, feeds: Tensors) -> Ranges:
    return {name: (float(value.min()), float(value.max())) for name, value in interpret(model, feeds).items() if value.dtype == np.float32}


def session_of(model: onnx.ModelProto, *, optimized: bool, dump: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, feeds: Tensors, *, optimized: bool) -> Tensors:
    session = session_of(model, optimized=optimized)
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))
