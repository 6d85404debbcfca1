"""What a tensor holds that no grid of numbers can: NaN, infinities, and the end of float32's range, which masks and padding leave inside.

Such values are normal inside a model: a mask is -inf or the lowest float32, two masks of the latter add up to -inf, a padded row whose keys
are all masked is 0/0. A Softmax, Max, Where or Exp takes them away again. Rounded to 8 bits they would be something else: -inf the lowest
level, and beside the lowest float32 every other value zero.
"""

from __future__ import annotations

import enum

import numpy as np
import onnx
from numpy.typing import NDArray

FAR = 1e38  # a third of the largest float32: no value that a network computes with, and what two of are infinite


class Special(enum.StrEnum):
    """A kind of value that cannot be rounded to a grid beside others."""

    NAN = "NaN"
    MINUS_INFINITY = "-inf"
    PLUS_INFINITY = "+inf"
    FAR = "values beyond 1e38"


def specials_in(values: NDArray[np.generic]) -> frozenset[Special]:
    """Return which special values an array of floats holds, any shape; none of an empty array or one of another type."""
    if values.dtype.kind != "f" or not values.size or _is_near(values):
        return frozenset()
    wide = values.astype(np.float64)  # FP16 cannot be compared with FAR
    found = {
        Special.NAN: np.isnan(wide),
        Special.MINUS_INFINITY: np.isneginf(wide),
        Special.PLUS_INFINITY: np.isposinf(wide),
        Special.FAR: np.isfinite(wide) & (np.abs(wide) > FAR),
    }
    return frozenset(kind for kind, where in found.items() if where.any())


def finite_of(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the finite values: the array itself where all are, else (count,)."""
    return values if values.dtype.kind != "f" or np.isfinite(values).all() else values[np.isfinite(values)]


def with_far_as_infinite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values with those at the end of float32's range as infinities of the same sign: such masks mean the same."""
    if not values.size or _is_near(values):
        return values
    return np.where(np.abs(values) > FAR, np.copysign(np.inf, values), values)


def weights_with_nan(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the constants of floats that hold NaN; infinite ones may be masks."""
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {
        node.output[0]: item.t for node in model.graph.node if node.op_type == "Constant" for item in node.attribute if item.name == "value"
    }
    return tuple(name for name, tensor in (kept | made).items() if Special.NAN in specials_in(onnx.numpy_helper.to_array(tensor)))


def _is_near(values: NDArray[np.generic]) -> bool:
    """Return whether no value is special; two passes without a copy, and every comparison with NaN is false."""
    low, high = float(values.min()), float(values.max())
    return low >= -FAR and high <= FAR
