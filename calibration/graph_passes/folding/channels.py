r"""What a node does to one tensor where that is y = a x + b, with a number a and b for each channel of one axis, or one for all.

    Mul: a = c          Div: a = 1 / c      Neg: a = -1
    Add: b = c          Sub: b = -c         Sub from a constant: a = -1, b = c
    BatchNormalization: a = gamma / sqrt(variance + epsilon), b = beta - a mean

Axes are counted from the end (-1 is the last one), as constants broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """y = factor * x + offset, along one axis of x or for all of it."""

    factor: Float  # () or (channels,)
    offset: Float  # () or (channels,)
    axis: int | None  # negative; None where both are single numbers

    @property
    def has_offset(self) -> bool:
        """Whether anything is added."""
        return bool(np.any(self.offset != 0.0))

    @property
    def has_factor(self) -> bool:
        """Whether anything is scaled."""
        return bool(np.any(self.factor != 1.0))

    @property
    def is_positive(self) -> bool:
        """Whether every factor is above zero."""
        return bool(np.all(self.factor > 0.0))

    @property
    def factor_alone(self) -> Affine:
        """The same without the offset."""
        return Affine(self.factor, np.array(0.0), self.axis if self.factor.ndim else None)

    def on(self, axis: int | None) -> Affine:
        """Return the same along another axis of another tensor; single numbers stay single."""
        return Affine(self.factor, self.offset, None if self.axis is None else axis)

    def broadcast(self, numbers: Float) -> Float:
        """Return numbers, () or (channels,), in a shape that broadcasts along the axis."""
        return numbers if self.axis is None or numbers.ndim == 0 else numbers.reshape(-1, *(1,) * (-self.axis - 1))


def affine_of(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    """Return the tensor that a node reads and what it does to it, None where it is nothing of that form or not finite."""
    if node.domain != "":
        return None
    found = _of_norm(node) if node.op_type == "BatchNormalization" else _of_arithmetic(node)
    if found is None or found[0].dtype != ir.DataType.FLOAT:
        return None
    numbers = found[1]
    return found if np.all(np.isfinite(numbers.factor)) and np.all(np.isfinite(numbers.offset)) else None


def constant_of(node: ir.Node, index: int) -> NDArray[np.generic] | None:
    """Return the value of a constant input, None where there is none."""
    value = node.inputs[index] if has_input(node, index) else None
    return None if value is None or not value.is_initializer() or value.const_value is None else value.const_value.numpy()


def has_input(node: ir.Node, index: int) -> bool:
    """Return whether a node has an input at a place."""
    return len(node.inputs) > index and node.inputs[index] is not None


def integer_of(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute."""
    return node.attributes[name].as_int() if name in node.attributes else default


def size_of(value: ir.Value, axis: int) -> int | None:
    """Return the size of an axis, counted from the end, where it is known and fixed."""
    if value.shape is None or len(value.shape) < -axis:
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def channel_numbers(constant: NDArray[np.generic], value: ir.Value) -> tuple[Float, int | None] | None:
    """Return a constant that is broadcast onto a tensor as one number, (), or one a channel, (channels,), and the axis of those.

    None where it is something else, where it makes the tensor larger, or where that is not known.
    """
    rank = None if value.shape is None else len(value.shape)
    if constant.ndim > 1 and (rank is None or constant.ndim > rank):
        return None
    wide = [axis - constant.ndim for axis, size in enumerate(constant.shape) if size != 1]
    if not constant.size or any(size_of(value, axis) != constant.shape[axis] for axis in wide) or (rank == 0 and constant.ndim > 0):
        return None
    first = constant.reshape(-1)[:1]
    if np.all(constant == first):
        return np.asarray(first, dtype=np.float64).reshape(()), None
    return (np.asarray(constant, dtype=np.float64).reshape(-1), wide[0]) if len(wide) == 1 else None


def _of_arithmetic(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    if node.op_type == "Neg" and node.inputs[0] is not None:
        return node.inputs[0], Affine(np.array(-1.0), np.array(0.0), None)
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    is_swapped = constant_of(node, 0) is not None
    constant = constant_of(node, 0 if is_swapped else 1)
    value = right if is_swapped else left
    if value is None or constant is None or value.is_initializer() or (is_swapped and node.op_type == "Div"):
        return None
    found = channel_numbers(constant, value)
    if found is None:
        return None
    numbers, axis = found
    one, zero = np.array(1.0), np.array(0.0)
    if node.op_type == "Mul":
        return value, Affine(numbers, zero, axis)
    if node.op_type == "Div":
        with np.errstate(divide="ignore"):
            return value, Affine(1.0 / numbers, zero, axis)
    if node.op_type == "Add":
        return value, Affine(one, numbers, axis)
    return value, Affine(-one, numbers, axis) if is_swapped else Affine(one, -numbers, axis)


def _of_norm(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    value = node.inputs[0]
    read = [constant_of(node, index) for index in range(1, 5)]
    if value is None or value.shape is None or len(value.shape) < 2 or any(array is None for array in read):
        return None
    if integer_of(node, "training_mode", 0) or any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None
    gamma, beta, mean, variance = (np.asarray(array, dtype=np.float64) for array in read)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = gamma / np.sqrt(variance + epsilon)
        return value, Affine(factor, beta - factor * mean, 1 - len(value.shape))
