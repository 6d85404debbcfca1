"""Runs small models in float64: what folding changes beyond rounding shows, however small.

onnx's own reference knows no automatic padding, no grouped ConvTranspose and other pooling than onnxruntime, so the operators are here; a
test compares them with onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tests.model_text import Array

TOLERANCE = 1e-9  # relative to the largest value: float64 has 1e-16, the numbers of the models are short enough for float32

_Double = NDArray[np.float64]
_Attributes = Mapping[str, Any]


def run_in_float64(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Return the outputs of ``model`` for float64 copies of its samples."""
    values: dict[str, Array] = {"": np.zeros(0)}
    values |= {name: _wide(array) for name, array in feeds.items()}
    values |= {tensor.name: _wide(onnx.numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    for node in model.graph.node:
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        read = [values[name] for name in node.input]
        if node.op_type == "Constant":
            values[node.output[0]] = _wide(onnx.numpy_helper.to_array(attributes["value"]))
        else:
            values[node.output[0]] = _OPERATORS[node.op_type](read, attributes)
    return [values[value.name] for value in model.graph.output]


def difference(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """Return the largest difference of two runs, relative to the largest value of the output."""
    assert [one.shape for one in expected] == [one.shape for one in found]
    return max(float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-30)) for one, other in zip(expected, found, strict=True))


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _padded(x: _Double, sizes: Sequence[int], attributes: _Attributes, value: float = 0.0) -> _Double:
    rank = len(sizes)
    pads = list(attributes.get("pads", [0] * 2 * rank))
    if attributes.get("auto_pad", b"NOTSET") == b"SAME_UPPER":  # strides are 1
        pads = [(size - 1) // 2 for size in sizes] + [size // 2 for size in sizes]
    return np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=value)


def _conv(read: Sequence[Array], attributes: _Attributes) -> _Double:
    x, weight = read[0], read[1]
    groups, spatial = attributes.get("group", 1), weight.shape[2:]
    windows = sliding_window_view(_padded(x, spatial, attributes), spatial, tuple(range(2, x.ndim)))
    axes = tuple(range(-len(spatial), 0))
    parts = []
    for one, filters in zip(np.split(windows, groups, axis=1), np.split(weight, groups, axis=0), strict=True):
        product = np.tensordot(one, filters, axes=((1, *axes), (1, *range(2, weight.ndim))))
        parts.append(np.moveaxis(product, -1, 1))
    return _biased(np.concatenate(parts, axis=1), read)


def _conv_transpose(read: Sequence[Array], attributes: _Attributes) -> _Double:
    x, weight = read[0], read[1]
    groups, spatial = attributes.get("group", 1), weight.shape[2:]
    wide = weight.shape[1] * groups
    result = np.zeros((len(x), wide, *(size + kernel - 1 for size, kernel in zip(x.shape[2:], spatial, strict=True))))
    step = x.shape[1] // groups
    for place in np.ndindex(*spatial):
        region = tuple(slice(start, start + size) for start, size in zip(place, x.shape[2:], strict=True))
        for group in range(groups):
            rows = slice(group * step, (group + 1) * step)
            product = np.tensordot(x[:, rows], weight[(rows, slice(None), *place)], axes=((1,), (0,)))
            channels = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
            result[(slice(None), channels, *region)] += np.moveaxis(product, -1, 1)
    pads = list(attributes.get("pads", [0] * 2 * len(spatial)))
    ends = [slice(low, size - high) for low, high, size in zip(pads, pads[len(spatial) :], result.shape[2:], strict=False)]
    return _biased(result[(slice(None), slice(None), *ends)], read)


def _biased(x: _Double, read: Sequence[Array]) -> _Double:
    return x + read[2].reshape(1, -1, *(1,) * (x.ndim - 2)) if len(read) > 2 else x


def _gemm(read: Sequence[Array], attributes: _Attributes) -> _Double:
    left = read[0].T if attributes.get("transA") else read[0]
    right = read[1].T if attributes.get("transB") else read[1]
    product: _Double = attributes.get("alpha", 1.0) * (left @ right)
    return product + attributes.get("beta", 1.0) * read[2] if len(read) > 2 else product


def _norm(read: Sequence[Array], attributes: _Attributes) -> _Double:
    shape = (1, -1, *(1,) * (read[0].ndim - 2))
    gamma, beta, mean, variance = (array.reshape(shape) for array in read[1:])
    result: _Double = (read[0] - mean) / np.sqrt(variance + attributes.get("epsilon", 1e-5)) * gamma + beta
    return result


def _pool(reduce: Callable[..., Array], value: float) -> Callable[[Sequence[Array], _Attributes], _Double]:
    def pooled(read: Sequence[Array], attributes: _Attributes) -> _Double:
        x, sizes = read[0], tuple(attributes["kernel_shape"])
        axes = tuple(range(-len(sizes), 0))
        found = sliding_window_view(_padded(x, sizes, attributes, value), sizes, tuple(range(2, x.ndim)))
        if value == 0.0:  # an average: what is padded does not count
            ones = sliding_window_view(_padded(np.ones_like(x), sizes, attributes), sizes, tuple(range(2, x.ndim)))
            return np.asarray(found.sum(axis=axes) / ones.sum(axis=axes))
        return reduce(found, axis=axes)

    return pooled


def _moved(read: Sequence[Array], attributes: _Attributes) -> Array:
    return np.transpose(read[0], attributes.get("perm"))


_OPERATORS: Mapping[str, Callable[[Sequence[Array], _Attributes], Array]] = {
    "Add": lambda read, _: read[0] + read[1],
    "AveragePool": _pool(np.mean, 0.0),
    "BatchNormalization": _norm,
    "Concat": lambda read, attributes: np.concatenate(read, axis=attributes["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda read, _: read[0] / read[1],
    "Gemm": _gemm,
    "Identity": lambda read, _: read[0],
    "LeakyRelu": lambda read, attributes: np.where(read[0] < 0, attributes["alpha"] * read[0], read[0]),
    "MatMul": lambda read, _: read[0] @ read[1],
    "MaxPool": _pool(np.max, -np.inf),
    "Mul": lambda read, _: read[0] * read[1],
    "Neg": lambda read, _: -read[0],
    "Relu": lambda read, _: np.maximum(read[0], 0),
    "Reshape": lambda read, _: read[0].reshape(read[1]),
    "Sub": lambda read, _: read[0] - read[1],
    "Transpose": _moved,
}
