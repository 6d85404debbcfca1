"""Operators with weights: convolutions, products, normalizations, recurrent layers."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from tests.generated.graphs import FLOATS, Array, Attributes, Dim, GraphBuilder, Tensor
from tests.generated.operators import Operator, partner

_MOST_INPUT = 2e3  # bound of what a weighted layer reads


def _sum_bound(weight: Array, axis: int, x: Tensor) -> float:
    """Return the largest magnitude of a product with the weight, whose output channels are on ``axis``."""
    others = tuple(index for index in range(weight.ndim) if index != axis)
    return float(np.abs(weight.astype(np.float64)).sum(axis=others).max()) * x.bound


def _bias(b: GraphBuilder, size: int, kind: int) -> tuple[list[str], float]:
    if b.choices.chance(30):
        return [], 0.0
    return [b.floats(b.rng.normal(size=size) * 0.2, kind)], 1.2


def _convolution(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a Conv: plain, grouped, depthwise, 1x1, strided or dilated; some end in an activation."""
    x = b.calm(x, min(_MOST_INPUT, 50.0 if x.kind == TensorProto.FLOAT16 else _MOST_INPUT))
    choices, channels, spatial = b.choices, x.size(1), x.rank - 2
    style = choices.of(("plain", "pointwise", "depthwise", "grouped", "strided", "dilated", "valid", "auto_pad"))
    kernel = 1 if style == "pointwise" else choices.of((3, 2) if style == "strided" else (3,))
    groups = channels if style == "depthwise" else 2 if style == "grouped" and channels % 2 == 0 else 1
    stride, dilation = (2 if style == "strided" else 1), (2 if style == "dilated" else 1)
    reach = dilation * (kernel - 1)
    sizes = b.concrete(x.shape[2:])
    pads = 0 if style == "valid" and min(sizes) > reach else reach // 2
    if min(sizes) + 2 * pads <= reach:
        pads = reach
    out = groups * choices.of((channels // groups, 4 if groups == 1 else 1, 8 if groups == 1 else 2))
    weight, values = b.weight([out, channels // groups, *[kernel] * spatial], x.kind, fan_in=channels // groups * kernel**spatial)
    bias, extra = _bias(b, out, x.kind)
    most = _sum_bound(values, 0, x) + extra

    def length(size: int) -> int:
        return -(-size // stride) if style == "auto_pad" else (size + 2 * pads - reach - 1) // stride + 1

    attributes: Attributes = {"auto_pad": "SAME_UPPER"} if style == "auto_pad" else {"pads": [pads] * 2 * spatial}
    if choices.chance(60) or kernel != 3:
        attributes["kernel_shape"] = [kernel] * spatial
    if groups > 1:
        attributes["group"] = groups
    if stride > 1 or choices.chance(30):
        attributes["strides"] = [stride] * spatial
    if dilation > 1:
        attributes["dilations"] = [dilation] * spatial
    shape = (x.shape[0], out, *(b.derived(size, length) if length(10) != 10 else size for size in x.shape[2:]))
    y = b.node("Conv", [x, weight, *bias], x, shape=shape, bounds=(-most, most), **attributes)
    return _activated(b, y)


def _activated(b: GraphBuilder, y: Tensor) -> Tensor:
    way = b.choices.below(5)
    if way == 1:
        return b.node("Relu", [y], y, bounds=(0.0, max(y.high, 0.0)))
    if way == 2:
        return b.clip(y, 0.0, 6.0)
    if way == 3 and y.has_fixed(1):
        return batch_normalization(b, y)
    return y


def _transposed_convolution(b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 50.0)
    channels, spatial = x.size(1), x.rank - 2
    out, stride = b.choices.of((channels, 3)), b.choices.of((1, 2))
    weight, values = b.weight([channels, out, *[2] * spatial], x.kind, fan_in=channels, axis=1)
    bias, extra = _bias(b, out, x.kind)
    most = _sum_bound(values, 1, x) + extra
    shape = (x.shape[0], out, *(b.derived(size, lambda n: (n - 1) * stride + 2) for size in x.shape[2:]))
    inputs: list[Tensor | str] = [x, weight, *bias]
    return b.node("ConvTranspose", inputs, x, shape=shape, bounds=(-most, most), strides=[stride] * spatial, kernel_shape=[2] * spatial)


def _product(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a MatMul with a weight, some with a bias behind it, on either side."""
    x = b.calm(x, 50.0 if x.kind == TensorProto.FLOAT16 else _MOST_INPUT)
    width, out = x.size(-1), b.choices.of((x.size(-1), 8, 4, 3))
    weight, values = b.weight([width, out], x.kind, fan_in=width, axis=1)
    most = _sum_bound(values, 1, x)
    y = b.node("MatMul", [x, weight], x, shape=(*x.shape[:-1], out), bounds=(-most, most))
    if b.choices.chance(50):
        bias = b.floats(b.rng.normal(size=out) * 0.2, x.kind)
        y = b.node("Add", b.choices.of(([y, bias], [bias, y])), y, bounds=(-most - 1.2, most + 1.2))
    return y


def _product_from_the_left(b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 50.0)
    rows, out = x.size(-2), b.choices.of((x.size(-2), 5))
    weight, values = b.weight([out, rows], x.kind, fan_in=rows)
    most = _sum_bound(values, 0, x)
    return b.node("MatMul", [weight, x], x, shape=(*x.shape[:-2], out, x.shape[-1]), bounds=(-most, most))


def _gemm(b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 50.0 if x.kind == TensorProto.FLOAT16 else _MOST_INPUT)
    width, out = x.size(1), b.choices.of((8, 4, x.size(1), 3))
    transposed = int(b.choices.chance(60))
    weight, values = b.weight([out, width] if transposed else [width, out], x.kind, fan_in=width, axis=0 if transposed else 1)
    alpha, beta = b.choices.of(((1.0, 1.0), (0.5, 1.0), (1.0, 2.0), (2.0, 0.5)))
    most = _sum_bound(values, 0 if transposed else 1, x) * alpha + 3.0
    bias: list[str] = []
    shape = b.choices.of(((out,), (1, out), (1,), (), None))
    if shape is not None or b.opset < 11:
        bias = [b.floats(np.clip(b.rng.normal(size=shape or (out,)) * 0.2, -1, 1), x.kind)]
    return b.node("Gemm", [x, weight, *bias], x, shape=(x.shape[0], out), bounds=(-most, most), transB=transposed, alpha=alpha, beta=beta)


def batch_normalization(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a BatchNormalization with the statistics of a trained one."""
    x = b.calm(x, 500.0)
    size = x.size(1)
    scale, shift, mean = b.rng.uniform(0.5, 1.5, size), b.rng.normal(size=size) * 0.3, b.rng.normal(size=size) * 0.3
    variance = b.rng.uniform(0.3, 2.0, size)
    most = (x.bound + 2.0) * 1.5 / 0.5 + 2.0
    return b.node("BatchNormalization", [x, *(b.floats(one, x.kind) for one in (scale, shift, mean, variance))], x, bounds=(-most, most))


def _normalization_bound(count: int) -> float:
    return 1.5 * float(count**0.5) + 1.5


def _parameters(b: GraphBuilder, shape: tuple[int, ...], kind: int) -> list[str]:
    return [b.floats(b.rng.uniform(0.5, 1.5, shape), kind), b.floats(b.rng.normal(size=shape) * 0.1, kind)]


def _layer_normalization(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x)
    most = _normalization_bound(x.size(-1))
    parameters = _parameters(b, (x.size(-1),), x.kind)
    if name == "RMSNormalization" or b.choices.chance(20):
        parameters = parameters[:1]
    return b.node(name, [x, *parameters], x, bounds=(-most, most), axis=-1, epsilon=1e-2)


def _decomposed_normalization(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a layer normalization as exporters wrote it before there was an operator."""
    x = b.calm(x, 100.0)
    axes: tuple[list[str], Attributes] = ([b.ints(-1)], {}) if b.opset >= 18 else ([], {"axes": [-1]})
    shape = (*x.shape[:-1], 1)
    mean = b.node("ReduceMean", [x, *axes[0]], x, shape=shape, **axes[1])
    centred = b.node("Sub", [x, mean], x, bounds=(-2 * x.bound, 2 * x.bound))
    squared = b.node("Pow", [centred, b.scalar(2.0, x.kind)], x, bounds=(0.0, 4 * x.bound**2))
    axes = ([b.ints(-1)], {}) if b.opset >= 18 else ([], {"axes": [-1]})
    variance = b.node("ReduceMean", [squared, *axes[0]], squared, shape=shape, **axes[1])
    kept = b.node("Add", [variance, b.scalar(1e-2, x.kind)], variance)
    deviation = b.node("Sqrt", [kept], kept, bounds=(0.1, 2 * x.bound + 0.1))
    most = _normalization_bound(x.size(-1))
    y = b.node("Div", [centred, deviation], x, bounds=(-most, most))
    return b.node("Mul", [y, _parameters(b, (x.size(-1),), x.kind)[0]], y, bounds=(-1.5 * most, 1.5 * most))


def _channel_normalization(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x)
    channels = x.size(1)
    count = channels * int(np.prod(b.concrete(x.shape[2:])))
    most = _normalization_bound(count)
    if name == "InstanceNormalization":
        return b.node(name, [x, *_parameters(b, (channels,), x.kind)], x, bounds=(-most, most), epsilon=1e-2)
    groups = 2 if channels % 2 == 0 else 1
    parameters = _parameters(b, (groups if b.opset < 21 else channels,), x.kind)
    return b.node(name, [x, *parameters], x, bounds=(-most, most), num_groups=groups, epsilon=1e-2)


def _local_response(b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 50.0)
    return b.node("LRN", [x], x, bounds=(-x.bound, x.bound), size=3)


def _recurrent(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    """Add an LSTM, GRU or RNN over (batch, time, width); the weights are constants in (time, batch, width) order."""
    x = b.calm(x, 20.0)
    hidden, width, ways = b.choices.of((4, 6)), x.size(2), b.choices.of((1, 2))
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[name]
    moved = b.node("Transpose", [x], x, shape=(x.shape[1], x.shape[0], width), perm=[1, 0, 2])

    def weights(*shape: int) -> str:
        values: NDArray[np.float64] = b.rng.normal(size=shape) * 0.4
        return b.constant(values.astype(FLOATS[x.kind]), "recurrent")

    inputs: list[Tensor | str] = [moved, weights(ways, gates * hidden, width), weights(ways, gates * hidden, hidden)]
    if b.choices.chance(60):
        inputs.append(weights(ways, 2 * gates * hidden))
    attributes: Attributes = {"hidden_size": hidden, "direction": "bidirectional" if ways == 2 else "forward"}
    if name == "GRU":
        attributes["linear_before_reset"] = b.choices.of((0, 1))
    states: tuple[Dim, ...] = (moved.shape[0], ways, x.shape[0], hidden)
    made = Tensor("new", x.kind, states, -1.0, 1.0)
    last = Tensor("new", x.kind, (ways, x.shape[0], hidden), -1.0, 1.0)
    if b.choices.chance(30):
        _, final = b.nodes_of(name, inputs, [Tensor("", x.kind, (), 0, 0), last], **attributes)
        y = b.node("Transpose", [final], final, shape=(x.shape[0], ways, hidden), perm=[1, 0, 2])
        return b.node("Reshape", [y, b.ints(0, ways * hidden)], y, shape=(x.shape[0], ways * hidden))
    (y,) = b.nodes_of(name, inputs, [made], **attributes)
    y = b.node("Transpose", [y], y, shape=(x.shape[0], moved.shape[0], ways, hidden), perm=[2, 0, 1, 3])
    return b.node("Reshape", [y, b.ints(0, 0, ways * hidden)], y, shape=(x.shape[0], moved.shape[0], ways * hidden))


def _residual(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a block whose result is added to what it reads."""
    x = b.calm(x, 50.0)
    if x.rank > 2:
        weight, values = b.weight([x.size(1), x.size(1), *[3] * (x.rank - 2)], x.kind, fan_in=x.size(1) * 3 ** (x.rank - 2))
        most = _sum_bound(values, 0, x)
        y = b.node("Conv", [x, weight], x, bounds=(-most, most), pads=[1] * 2 * (x.rank - 2))
    else:
        weight, values = b.weight([x.size(1), x.size(1)], x.kind, fan_in=x.size(1), axis=1)
        most = _sum_bound(values, 1, x)
        y = b.node("MatMul", [x, weight], x, bounds=(-most, most))
    total = b.node("Add", b.choices.of(([y, x], [x, y])), x, bounds=(x.low - most, x.high + most))
    return _activated(b, total)


def _attention(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add scaled products of (batch, length, width) with itself, over a Softmax."""
    x = b.calm(x, 10.0)
    width = x.size(2)
    query, key, value = (_product(b, x) for _ in range(3))
    if not query.shape == key.shape == value.shape:
        query = key = x
        value = value if value.shape[:2] == x.shape[:2] else x
    turned = b.node("Transpose", [key], key, shape=(key.shape[0], key.shape[2], key.shape[1]), perm=[0, 2, 1])
    most = query.bound * key.bound * key.size(2)
    scores = b.node("MatMul", [query, turned], query, shape=(query.shape[0], query.shape[1], key.shape[1]), bounds=(-most, most))
    scores = b.node("Div", [scores, b.scalar(width**0.5, x.kind)], scores)
    if b.choices.chance(30) and scores.has_fixed(1):
        mask = np.triu(np.full((scores.size(1),) * 2, b.choices.of((-1e4, -100.0))), 1)
        scores = b.node("Add", [scores, b.floats(mask, x.kind)], scores, bounds=(scores.low - 1e4, scores.high))
    elif b.choices.chance(15) and scores.has_fixed(1):
        lowest = np.triu(np.full((scores.size(1),) * 2, np.finfo(np.float32).min), 1)
        for _ in range(2):  # their sum is -inf, which only the Softmax sees
            scores = b.node("Add", [scores, b.floats(lowest, x.kind)], scores)
    shares = b.node("Softmax", [scores], scores, bounds=(0.0, 1.0), axis=2 if b.opset < 13 else -1)
    return b.node("MatMul", [shares, value], value, bounds=(-value.bound, value.bound))


def _activation_product(b: GraphBuilder, x: Tensor) -> Tensor:
    """Multiply two computed tensors: one of them, turned, if no other fits."""
    x = b.calm(x, 10.0)
    other = partner(b, x)
    other = x if other is None else b.calm(other, 10.0)
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    turned = b.node("Transpose", [other], other, shape=[other.shape[axis] for axis in order], perm=order)
    most = x.bound * other.bound * x.size(-1)
    return b.node("MatMul", [x, turned], x, shape=(*x.shape[:-1], turned.shape[-1]), bounds=(-most, most))


def _einsum(b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 50.0)
    weight, values = b.weight([x.size(2), 5], x.kind, fan_in=x.size(2), axis=1)
    most = _sum_bound(values, 1, x)
    return b.node("Einsum", [x, weight], x, shape=(*x.shape[:2], 5), bounds=(-most, most), equation="bld,de->ble")


def _is_image(x: Tensor) -> bool:
    return x.is_float and x.rank in (3, 4) and x.has_fixed(1)


def _is_plain_image(x: Tensor) -> bool:
    return _is_image(x) and x.kind == TensorProto.FLOAT


def _is_row(x: Tensor) -> bool:
    return x.is_float and x.rank == 2 and x.has_fixed(1)


def _is_wide(x: Tensor) -> bool:
    return x.is_float and x.rank >= 2 and x.has_fixed(-1)


def _is_plain_wide(x: Tensor) -> bool:
    return _is_wide(x) and x.kind == TensorProto.FLOAT and x.size(-1) > 1


def _is_sequence(x: Tensor) -> bool:
    return x.kind == TensorProto.FLOAT and x.rank == 3 and x.has_fixed(2)


GEMM = Operator("Gemm", _gemm, accepts=_is_row)
LINEAR = (
    Operator("Conv", _convolution, accepts=_is_image),
    GEMM,
    Operator("MatMul", _product, accepts=lambda x: _is_wide(x) and x.rank < 4),
    Operator("residual", _residual, accepts=lambda x: _is_image(x) or _is_row(x)),
    Operator("ConvTranspose", _transposed_convolution, accepts=_is_plain_image),
    Operator("attention", _attention, accepts=_is_sequence),
    Operator("MatMul from the left", _product_from_the_left, accepts=lambda x: x.is_float and x.rank >= 3 and x.has_fixed(-2)),
)
WEIGHTED = (
    *LINEAR,
    Operator("product of activations", _activation_product, accepts=lambda x: _is_wide(x) and x.rank > 2),
    Operator("Einsum", _einsum, accepts=_is_sequence, since=12),
    Operator("BatchNormalization", batch_normalization, accepts=lambda x: x.is_float and x.rank > 1 and x.has_fixed(1)),
    Operator("LayerNormalization", partial(_layer_normalization, "LayerNormalization"), accepts=_is_plain_wide, since=17),
    Operator("RMSNormalization", partial(_layer_normalization, "RMSNormalization"), accepts=_is_plain_wide, since=23),
    Operator("decomposed normalization", _decomposed_normalization, accepts=_is_plain_wide),
    Operator("InstanceNormalization", partial(_channel_normalization, "InstanceNormalization"), accepts=_is_plain_image),
    Operator("GroupNormalization", partial(_channel_normalization, "GroupNormalization"), accepts=_is_plain_image, since=18),
    Operator("LRN", _local_response, accepts=lambda x: _is_plain_image(x) and x.rank == 4),
    *(Operator(name, partial(_recurrent, name), accepts=_is_sequence) for name in ("LSTM", "GRU", "RNN")),
)
