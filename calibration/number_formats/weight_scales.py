"""The grid of a layer's integer weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.graph.layers import Layer
from calibration.number_formats.block_grids import block_steps
from calibration.number_formats.grids import block_scale, weight_scale
from calibration.number_formats.pair_bound import adds_pairs, pair_bound_scale
from calibration.number_formats.precision import Precision, Scheme

INTEGERS = tuple(precision for precision in Precision if precision.is_integer)
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def reduction_axis(weight_axis: int, rank: int) -> int:
    """Return the axis of a matrix, or of a stack of them, that the product sums over; ``weight_axis`` is the other one."""
    return 2 * rank - 3 - weight_axis


def weight_step(weight: NDArray[np.float32], layer: Layer, precision: Precision, scheme: Scheme) -> NDArray[np.float32]:
    """Return the step between two levels at each weight, broadcastable to the weight; float32.

    Args:
        weight: The layer's weight, or what is rounded in its place.
        layer: The layer.
        precision: Of integers.
        scheme: How the target quantizes: where it has blocks, weights of products are in those of their format, along the axis that is
            summed over; where it bounds pairs, the step of integers whose kernels may saturate is as large as that takes. Formats whose
            kernels round in blocks have them whatever the target; steps of all of INT4's levels may be negative.
    """
    is_product = layer.op_type not in _CONVOLUTIONS and weight.ndim in (2, 3)  # a Conv1d's weight has three axes too
    block = precision.weight_block if scheme.blocks_weights or precision.rounds_blocks else None
    if block is not None and layer.weight_axis is not None and is_product:
        axis = reduction_axis(layer.weight_axis, weight.ndim)
        if precision.rounds_blocks:
            scale = block_steps(weight, axis, precision)
        else:
            scale = block_scale(weight, axis, block=block, bits=precision.bits)
        return np.asarray(np.take(np.repeat(scale, block, axis=axis), np.arange(weight.shape[axis]), axis=axis))
    step = weight_scale(weight, layer.weight_axis, bits=precision.bits)
    if precision.may_saturate and scheme.bounds_pairs and adds_pairs(layer, weight.shape):
        return np.maximum(step, pair_bound_scale(weight, layer))
    return step
