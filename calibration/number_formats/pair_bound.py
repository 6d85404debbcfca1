r"""The pair bound: int8 weights that kernels which add two products in saturating 16 bits still multiply exactly.

On x86-64 without VNNI, ONNX Runtime multiplies unsigned activations by signed weights with ``pmaddubsw``, which adds the products of two
neighbours along the axis that is summed over as a signed 16-bit number and saturates: 255 * 127 + 255 * 127 = 64770 becomes 32767. No
activation can bring two weights of one sign past it if

    |q_2j| + |q_2j+1| <= 128,        since 255 * 128 = 32640 <= 32767,

and two of opposite signs never get there. So the scale of an output channel is raised, if it must be, until all its pairs keep the bound:
s = max(max|w| / 127, max over pairs of one sign (|w_2j| + |w_2j+1|) / 128). Rounding half to even cannot lift the sum of two levels past
128: for that both would have to be rounded up by a half, and then both were odd and a half, which add up to an odd number.

The pairs are (2j, 2j + 1) along the axis of the sum, that of a convolution flattened as (kernel position, input channel) within a group;
at an odd length the last weight is alone. Measured on ONNX Runtime 1.32 for every kind of layer: convolutions with one channel in and one
out a group (depthwise) and transposed convolutions never add pairs, nor does a product whose weight stands on the left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.graph.layers import Layer, LayerKind

PAIR_LIMIT = 128  # most that two neighbouring levels of one sign may add up to
_MARGIN = 1.0 + 2.0**-20  # of the scale: more than float32 rounding of w / s can lift a sum of two by


def adds_pairs(layer: Layer, shape: tuple[int, ...]) -> bool:
    """Return whether an integer kernel of the layer adds neighbouring products before it widens them.

    Args:
        layer: The layer.
        shape: Of its weight.
    """
    if layer.kind is not LayerKind.WEIGHTED or layer.op_type == "ConvTranspose":
        return False
    if layer.op_type == "Conv":
        is_depthwise = shape[1] == 1 and layer.groups == shape[0]
        return not is_depthwise
    is_on_the_left = layer.op_type == "MatMul" and layer.weight_axis is not None and layer.weight_axis == len(shape) - 2
    return not is_on_the_left


def kernel_rows(weight: NDArray[np.generic], layer: Layer) -> NDArray[np.generic]:
    """Return the weight as one row for each output channel, (rows, terms), in the order that a kernel adds the terms of its sum.

    Args:
        weight: Of a layer that ``adds_pairs``, or anything of its shape.
        layer: The layer.
    """
    if layer.op_type == "Conv":
        return np.moveaxis(weight, 1, -1).reshape(weight.shape[0], -1)
    if weight.ndim == 1:
        return weight[None]
    if layer.op_type == "Gemm" and layer.weight_axis == 0:
        return weight
    return np.swapaxes(weight, -1, -2).reshape(-1, weight.shape[-2])


def pair_bound_scale(weight: NDArray[np.float32], layer: Layer) -> NDArray[np.float32]:
    """Return the least scale of each output channel at which no pair of levels saturates, shape broadcastable to ``weight``; may be 0.

    Args:
        weight: The layer's weight, or what is rounded in its place.
        layer: One that ``adds_pairs``.
    """
    scale = np.asarray(_pair_sums(kernel_rows(weight, layer)) * (_MARGIN / PAIR_LIMIT), dtype=np.float32)
    if layer.weight_axis is None:
        return np.asarray(scale.max(initial=0.0), dtype=np.float32)
    shape = [1] * weight.ndim
    shape[layer.weight_axis] = weight.shape[layer.weight_axis]
    largest = scale.reshape(-1, weight.shape[layer.weight_axis]).max(axis=0)
    return np.asarray(largest.reshape(shape), dtype=np.float32)


def keeps_pair_bound(levels: NDArray[np.int8], layer: Layer) -> bool:
    """Return whether no two neighbours among the integer weights of a layer can saturate 16 bits, whatever the activations."""
    if not adds_pairs(layer, levels.shape):
        return True
    rows = kernel_rows(levels, layer)
    count = rows.shape[1] // 2 * 2
    # In integers, since weights are many: a pair of two signs is no larger than one of its levels, which alone never saturates.
    sums = np.add(rows[:, 0:count:2], rows[:, 1:count:2], dtype=np.int16)
    return bool(max(int(sums.max(initial=0)), -int(sums.min(initial=0))) <= PAIR_LIMIT)


def partners(layer: Layer, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return, for each term of one output channel in the weight's own order, the term that it is added to first; -1 for none.

    Args:
        layer: One that ``adds_pairs``.
        shape: Of its weight; of two axes unless it is a convolution's.
    """
    if layer.op_type == "Conv":
        terms = np.arange(int(np.prod(shape[1:])), dtype=np.int64).reshape(1, *shape[1:])
    else:
        terms = np.arange(shape[1 - (layer.weight_axis or 0)], dtype=np.int64)[None]
    order = (np.moveaxis(terms, 1, -1) if layer.op_type == "Conv" else terms).reshape(-1)
    found = np.full(order.size, -1, dtype=np.int64)
    even = order[: order.size // 2 * 2].reshape(-1, 2)
    found[even[:, 0]], found[even[:, 1]] = even[:, 1], even[:, 0]
    return found


def _pair_sums(rows: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the largest |a| + |b| of each row's pairs of one sign, (rows,), 0 without any."""
    even = rows.astype(np.float64)[:, : rows.shape[1] // 2 * 2].reshape(rows.shape[0], -1, 2)
    sums = np.where((even[..., 0] > 0) == (even[..., 1] > 0), np.abs(even.sum(axis=-1)), 0)
    return np.asarray(sums.max(axis=-1, initial=0.0))
