"""Small models in the TensorRT dialect, by hand: FP16 throughout, Q/DQ straight in front of what they quantize, every node named."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

Initializers = Mapping[str, NDArray[np.generic]]

HALF_SCALE = np.float16(0.02)


def dialect_model(graph: str, initializers: Initializers) -> onnx.ModelProto:
    """Return the model of a graph's text; a node without a name takes its first output's."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {graph}')
    for name, array in initializers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    onnx.checker.check_model(model)
    return model


def half(*shape: int, seed: int = 0) -> NDArray[np.float16]:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.1).astype(np.float16)


def whole(*shape: int, seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def residual(precision: str) -> onnx.ModelProto:
    """Return two convolutions and a sum with their input: nodes first, second, sum, relu; fp16, int8, or mixed (only first in int8)."""
    scales: dict[str, NDArray[np.generic]] = {"s": np.asarray(HALF_SCALE), "z": np.asarray(0, np.int8), "c": np.full(32, HALF_SCALE)}
    first = """first_in = DequantizeLinear(xq, s, z)  first_w = DequantizeLinear<axis=0>(w1, c)
               first = Conv<pads=[1,1,1,1]>(first_in, first_w, b)"""
    quantized = "xq = QuantizeLinear(xh, s, z)"
    plain = {"w1": half(32, 32, 3, 3), "w2": half(32, 32, 3, 3), "b": half(32)}
    if precision == "fp16":
        weights: Initializers = plain
        body = "first = Conv<pads=[1,1,1,1]>(xh, w1, b) r = Relu(first) second = Conv<pads=[1,1,1,1]>(r, w2, b) sum = Add(second, xh)"
    elif precision == "mixed":
        weights = {**plain, **scales, "w1": whole(32, 32, 3, 3)}
        body = f"{quantized} {first} r = Relu(first) second = Conv<pads=[1,1,1,1]>(r, w2, b) sum = Add(second, first_in)"
    else:
        weights = {**plain, **scales, "w1": whole(32, 32, 3, 3), "w2": whole(32, 32, 3, 3)}
        body = f"""{quantized} {first} r = Relu(first) rq = QuantizeLinear(r, s, z) second_in = DequantizeLinear(rq, s, z)
                   second_w = DequantizeLinear<axis=0>(w2, c) second = Conv<pads=[1,1,1,1]>(second_in, second_w, b)
                   sum = Add(second, first_in)"""
    return dialect_model(
        f"g (float[N,32,16,16] x) => (float[N,32,16,16] y) {{ xh = Cast<to=10>(x) {body} relu = Relu(sum) y = Cast<to=1>(relu) }}", weights
    )


def gemm(precision: str) -> onnx.ModelProto:
    """Return one Gemm, node fc, 64 -> 96, in fp16, int8, fp8 or weight-only int8 ("weight")."""
    weight: NDArray[np.generic] = half(96, 64)
    zero: NDArray[np.generic] = np.asarray(0, np.int8)
    if precision in ("int8", "weight"):
        weight = whole(96, 64)
    if precision == "fp8":
        weight, zero = weight.astype(ml_dtypes.float8_e4m3fn), np.asarray(0, ml_dtypes.float8_e4m3fn)
    scale = np.full(96, HALF_SCALE) if precision in ("int8", "weight") else np.asarray(HALF_SCALE)
    axis = "<axis=0>" if precision in ("int8", "weight") else ""
    inputs = {
        "fp16": "a = Identity(xh)",
        "weight": "a = Identity(xh)",
    }.get(precision, "xq = QuantizeLinear(xh, s, z) a = DequantizeLinear(xq, s, z)")
    weights = "wd = Identity(w)" if precision == "fp16" else f"wd = DequantizeLinear{axis}(w, c)"
    body = f"{inputs} {weights} fc = Gemm<transB=1>(a, wd, b)"
    initializers: dict[str, NDArray[np.generic]] = {"w": weight, "b": half(96)}
    if precision != "fp16":
        initializers |= {"c": scale}
    if precision in ("int8", "fp8"):
        initializers |= {"s": np.asarray(HALF_SCALE), "z": zero}
    return dialect_model(f"g (float[N,64] x) => (float[N,96] y) {{ xh = Cast<to=10>(x) {body} y = Cast<to=1>(fc) }}", initializers)


def matmul_int4() -> onnx.ModelProto:
    """Return one MatMul with INT4 weights in blocks of 32 along the reduction axis: node product."""
    weight = np.random.default_rng(0).integers(-7, 8, (64, 96)).astype(ml_dtypes.int4)
    return dialect_model(
        """g (float[N,4,64] x) => (float[N,4,96] y) {
            xh = Cast<to=10>(x)
            wd = DequantizeLinear<axis=0, block_size=32>(w, c)
            product = MatMul(xh, wd)
            y = Cast<to=1>(product)
        }""",
        {"w": weight, "c": np.full((2, 96), HALF_SCALE)},
    )


def attention(*, quantized: bool) -> onnx.ModelProto:
    """Return one attention layer of 2 heads of 32: products scores and mixed, all four of their tensors in INT8 where ``quantized``."""
    pair = "{0}q = QuantizeLinear({0}, s, z) {0}d = DequantizeLinear({0}q, s, z)"
    pairs = {name: pair.format(name) if quantized else f"{name}d = Identity({name})" for name in ("q", "k", "p", "v")}
    return dialect_model(
        f"""g (float[N,32,64] x) => (float[N,32,64] y) <int64[4] split = {{0, 0, 2, 32}}, int64[3] join = {{0, 0, 64}}> {{
            xh = Cast<to=10>(x)
            q0 = MatMul(xh, wq) k0 = MatMul(xh, wk) v0 = MatMul(xh, wv)
            q1 = Reshape(q0, split) k1 = Reshape(k0, split) v1 = Reshape(v0, split)
            q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,3,1]>(k1) v = Transpose<perm=[0,2,1,3]>(v1)
            {pairs["q"]} {pairs["k"]} {pairs["v"]}
            scores = MatMul(qd, kd)
            scaled = Mul(scores, quarter)
            p = Softmax<axis=3>(scaled)
            {pairs["p"]}
            mixed = MatMul(pd, vd)
            m1 = Transpose<perm=[0,2,1,3]>(mixed)
            m2 = Reshape(m1, join)
            out = MatMul(m2, wo)
            y = Cast<to=1>(out)
        }}""",
        {
            **{f"w{n}": half(64, 64, seed=i) for i, n in enumerate("qkvo")},
            "quarter": np.asarray(0.25, np.float16),
            **({"s": np.asarray(HALF_SCALE), "z": np.asarray(0, np.int8)} if quantized else {}),
        },
    )


def transposed(*, quantized: bool) -> onnx.ModelProto:
    """Return one ConvTranspose, node up, which TensorRT-RTX runs in floating point even if it is quantized."""
    body = "up = ConvTranspose<strides=[2,2]>(xh, w)"
    weights: Initializers = {"w": half(16, 16, 2, 2)}
    if quantized:
        body = """xq = QuantizeLinear(xh, s, z) xd = DequantizeLinear(xq, s, z) wd = DequantizeLinear<axis=1>(w, c)
                  up = ConvTranspose<strides=[2,2]>(xd, wd)"""
        weights = {"w": whole(16, 16, 2, 2), "s": np.asarray(HALF_SCALE), "z": np.asarray(0, np.int8), "c": np.full(16, HALF_SCALE)}
    return dialect_model(f"g (float[N,16,8,8] x) => (float[N,16,16,16] y) {{ xh = Cast<to=10>(x) {body} y = Cast<to=1>(up) }}", weights)


def half_quantized_conv() -> onnx.ModelProto:
    """Return one Conv, node conv, with a quantized input and float weights, which TensorRT-RTX runs in floating point."""
    return dialect_model(
        """g (float[N,16,8,8] x) => (float[N,16,8,8] y) {
            xh = Cast<to=10>(x)
            xq = QuantizeLinear(xh, s, z) xd = DequantizeLinear(xq, s, z)
            conv = Conv<pads=[1,1,1,1]>(xd, w)
            y = Cast<to=1>(conv)
        }""",
        {"w": half(16, 16, 3, 3), "s": np.asarray(HALF_SCALE), "z": np.asarray(0, np.int8)},
    )


def depthwise_int8() -> onnx.ModelProto:
    """Return one depthwise Conv in INT8, node depthwise."""
    return dialect_model(
        """g (float[N,32,16,16] x) => (float[N,32,16,16] y) {
            xh = Cast<to=10>(x)
            xq = QuantizeLinear(xh, s, z) xd = DequantizeLinear(xq, s, z) wd = DequantizeLinear<axis=0>(w, c)
            depthwise = Conv<pads=[1,1,1,1], group=32>(xd, wd)
            y = Cast<to=1>(depthwise)
        }""",
        {"w": whole(32, 1, 3, 3), "s": np.asarray(HALF_SCALE), "z": np.asarray(0, np.int8), "c": np.full(32, HALF_SCALE)},
    )


def fallback_region() -> onnx.ModelProto:
    """Return an FP16 Gemm, node first, and an FP32 one, node second."""
    return dialect_model(
        """g (float[N,64] x) => (float[N,64] y) {
            xh = Cast<to=10>(x)
            first = MatMul(xh, w)
            up = Cast<to=1>(first)
            y = MatMul(up, v)
        }""",
        {"w": half(64, 64), "v": half(64, 64).astype(np.float32)},
    )
