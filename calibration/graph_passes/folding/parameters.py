r"""The weight and bias of a layer, and what they become when factors and offsets before or behind the layer are folded into them.

Behind:  a (W * x + b) + o = (a W) * x + (a b + o)                 a, o per output channel
Before:  W * (a x + o) + b = (W a) * x + (b + sum over W of o)     a, o per input channel; o only where nothing is padded

Layouts: Conv (out, in / groups, ...), ConvTranspose (in, out / groups, ...), Gemm (in, out) or its transpose, MatMul (..., in, out), and
(..., out, in) where the weight stands on the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.graph_passes.folding.channels import Affine, Float, constant_of, has_input, integer_of

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FP16_LARGEST = 65504.0
# Below this typical size FP16's spacing, 2^-24, is more than its usual 2^-10 of a weight: engines in FP16 would lose by the folding.
_FP16_TYPICAL = 2.0**-16
_FLOAT32_NORMAL = float(np.finfo(np.float32).tiny)


@dataclass(slots=True, eq=False)
class Parameters:
    """Weight and bias of a layer in the making: folded into step by step, written to the model at the end or thrown away."""

    node: ir.Node
    activation: int  # place of the computed input
    weight_index: int
    in_axis: int  # of the channels in the computed input, counted from the end
    out_axis: int  # of the channels in the output
    groups: int
    weight: NDArray[np.float32]
    bias: Float | None  # of a Conv, ConvTranspose or Gemm; None without one, and for MatMul
    is_weight_new: bool = False
    is_bias_new: bool = False

    @property
    def has_bias_input(self) -> bool:
        """Whether the operator has an input for a bias."""
        return self.node.op_type != "MatMul"

    @property
    def channels_in(self) -> int:
        """Channels of the computed input."""
        size = int(self.weight.shape[self._axes[0]])
        return size * self.groups if self.node.op_type == "Conv" else size

    @property
    def channels_out(self) -> int:
        """Channels of the output."""
        size = int(self.weight.shape[self._axes[1]])
        return size * self.groups if self.node.op_type == "ConvTranspose" else size

    def fold_behind(self, affine: Affine) -> bool:
        """Take in what happens to the output; return whether that can be, in which case nothing else may be done with this object."""
        if not _fits(affine, self.out_axis, self.channels_out):
            return False
        if affine.has_offset and not self.has_bias_input:
            return False
        if affine.has_factor:
            if not self._scale(self._shaped(affine.factor, is_output=True)):
                return False
            if self.bias is not None:
                self.bias, self.is_bias_new = self.bias * affine.factor, True
        return self._add(affine.offset) if affine.has_offset else self._is_bias_sound()

    def fold_before(self, affine: Affine) -> bool:
        """Take in what happens to the computed input; return whether that can be."""
        if not _fits(affine, self.in_axis, self.channels_in):
            return False
        if affine.has_offset:
            if not self.has_bias_input or self.node.op_type == "ConvTranspose" or self.is_padded():
                return False
            if not self._add(self._sums(np.broadcast_to(affine.offset, (self.channels_in,)))):
                return False
        return self._scale(self._shaped(affine.factor, is_output=False)) if affine.has_factor else True

    def is_padded(self) -> bool:
        """Return whether a convolution reads zeros around its input."""
        if self.node.op_type != "Conv":
            return False
        attributes = self.node.attributes
        automatic = attributes["auto_pad"].as_string() if "auto_pad" in attributes else "NOTSET"
        if automatic.startswith("SAME"):
            return any(size != 1 for size in self.weight.shape[2:])
        return automatic == "NOTSET" and "pads" in attributes and any(attributes["pads"].as_ints())

    def weight_by_output(self) -> NDArray[np.float32]:
        """Return the weight as (outputs, channels of a group, weights of a channel); a stack of matrices has several weights a channel."""
        kind, groups, (inner, outer) = self.node.op_type, self.groups, self._axes
        if kind == "Conv":
            return self.weight.reshape(len(self.weight), self.weight.shape[1], -1)
        if kind == "ConvTranspose":
            parts = self.weight.reshape(groups, len(self.weight) // groups, self.weight.shape[1], -1)
            return parts.transpose(0, 2, 1, 3).reshape(self.channels_out, len(self.weight) // groups, -1)
        moved = np.moveaxis(self.weight, (outer, inner), (0, 1))
        return moved.reshape(*moved.shape[:2], -1)

    @property
    def _axes(self) -> tuple[int, int]:
        """Axes of the weight that hold the input's and the output's channels (of one group)."""
        kind = self.node.op_type
        if kind == "Conv":
            return 1, 0
        if kind == "ConvTranspose":
            return 0, 1
        if kind == "Gemm":
            return (1, 0) if integer_of(self.node, "transB", 0) else (0, 1)
        rank = self.weight.ndim
        return (rank - 2, rank - 1) if self.weight_index == 1 else (rank - 1, rank - 2)

    def _shaped(self, numbers: Float, *, is_output: bool) -> Float:
        """Return numbers per channel, or one for all, in a shape that broadcasts onto the weight."""
        if numbers.ndim == 0:
            return numbers
        kind, groups = self.node.op_type, self.groups
        axis, other = self._axes[::-1] if is_output else self._axes
        shape = [1] * self.weight.ndim
        if (kind == "Conv" and not is_output) or (kind == "ConvTranspose" and is_output):  # the weight has those of one group
            numbers = numbers.reshape(groups, -1).repeat(self.weight.shape[other] // groups, axis=0)
            shape[other], shape[axis] = self.weight.shape[other], self.weight.shape[axis]
        else:
            shape[axis] = len(numbers)
        return numbers.reshape(shape)

    def _scale(self, factors: Float) -> bool:
        old = self.weight
        with np.errstate(over="ignore", under="ignore"):
            new = np.multiply(old, factors, out=np.empty_like(old), casting="same_kind")  # computed in float64, a piece at a time
        if not _is_sound(old, new, factors):
            return False
        self.weight, self.is_weight_new = new, True
        return True

    def _sums(self, offset: Float) -> Float:
        """Return what an offset of the input, (channels_in,), adds to each output channel, as the weight is before its factor."""
        if self.node.op_type != "Conv":
            matrix = self.weight if self._axes == (0, 1) else self.weight.T
            return np.asarray(np.einsum("io,i->o", matrix, offset), dtype=np.float64)
        taps = self.weight.sum(axis=tuple(range(2, self.weight.ndim)), dtype=np.float64)  # (out, in / groups)
        rows = offset.reshape(self.groups, -1).repeat(len(taps) // self.groups, axis=0)
        return np.asarray((taps * rows).sum(axis=1), dtype=np.float64)

    def _add(self, offset: Float) -> bool:
        start = np.zeros(self.channels_out) if self.bias is None else self.bias
        self.bias, self.is_bias_new = start + offset, True
        return self._is_bias_sound()

    def _is_bias_sound(self) -> bool:
        return self.bias is None or not self.is_bias_new or bool(np.all(np.abs(self.bias) <= _FP16_LARGEST))


def parameters_of(node: ir.Node) -> Parameters | None:
    """Return the parameters of a layer, None where a node is no layer with a constant float32 weight and a constant bias or none."""
    if node.op_type not in LAYERS or node.domain != "":
        return None
    index = 0 if node.op_type == "MatMul" and constant_of(node, 0) is not None else 1
    weight, activation = constant_of(node, index), node.inputs[1 - index]
    if weight is None or weight.dtype != np.float32 or weight.ndim < 2 or activation is None or activation.is_initializer():
        return None
    bias = constant_of(node, 2)
    if has_input(node, 2) and bias is None:
        return None
    if any(name in node.attributes and node.attributes[name].as_float() != 1.0 for name in ("alpha", "beta")):
        return None
    spatial = 1 - weight.ndim
    if node.op_type in ("Conv", "ConvTranspose"):
        in_axis = out_axis = spatial
    elif node.op_type == "Gemm":
        in_axis, out_axis = -2 if integer_of(node, "transA", 0) else -1, -1
    elif index == 1:
        in_axis = out_axis = -1
    elif activation.shape is None or len(activation.shape) < 2:
        return None
    else:
        in_axis = out_axis = -2
    return Parameters(
        node=node,
        activation=1 - index,
        weight_index=index,
        in_axis=in_axis,
        out_axis=out_axis,
        groups=integer_of(node, "group", 1),
        weight=np.asarray(weight, dtype=np.float32),
        bias=None if bias is None else np.asarray(bias, dtype=np.float64),
    )


def _fits(affine: Affine, axis: int, channels: int) -> bool:
    if affine.axis is None:
        return True
    sizes = {len(numbers) for numbers in (affine.factor, affine.offset) if numbers.ndim}
    return affine.axis == axis and sizes == {channels}


def _is_sound(old: NDArray[np.float32], new: NDArray[np.float32], factors: Float) -> bool:
    """Return whether no number has left what float32 holds exactly to rounding, nor the typical and the largest what FP16 holds."""
    largest, before = _largest(new), _largest(old)
    if not np.isfinite(largest) or largest > max(before, _FP16_LARGEST):
        return False
    if np.all(np.abs(factors[factors != 0.0]) >= 1.0):
        return True
    typical = _typical(new)
    if np.any(factors) and typical < min(_FP16_TYPICAL, _typical(old)):
        return False
    lost = (np.abs(new) < _FLOAT32_NORMAL) & (np.abs(old) >= _FLOAT32_NORMAL) & (factors != 0.0)
    return not np.any(lost)


def _largest(weight: NDArray[np.float32]) -> float:
    return float(max(weight.max(initial=0.0), -weight.min(initial=0.0)))


def _typical(weight: NDArray[np.float32]) -> float:
    """Return the root mean square of the numbers that are not zero."""
    count = np.count_nonzero(weight)
    flat = weight.reshape(-1)
    return float(np.sqrt(np.einsum("i,i->", flat, flat, dtype=np.float64) / count)) if count else 0.0
