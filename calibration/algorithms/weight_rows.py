"""A layer as a matrix product: the rows of its input that its weight multiplies, and the weight as matrices of (inputs, outputs)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from calibration.graph.layers import Layer, LayerKind

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Product:
    """How a layer multiplies: each of ``groups`` shares of the input by a matrix of its own."""

    layer: Layer
    shape: tuple[int, ...]  # of the weight
    groups: int = 1
    strides: tuple[int, ...] = ()  # a convolution's, with its dilations and its pads before and after each of the two axes
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for layers whose rows are the same."""
        if self.layer.op_type != "Conv":
            return (self.layer.inputs[0], self.layer.op_type == "MatMul" and self.layer.weight_axis == 0)
        return (self.layer.inputs[0], self.shape[1:], self.groups, self.strides, self.dilations, self.pads)

    def rows(self, x: Floats, limit: int) -> Floats:
        """Return the rows of the input ``x``, (groups, rows, inputs); evenly spaced ones if there are more than ``limit``."""
        if self.layer.op_type != "Conv":
            if self.layer.op_type == "MatMul" and self.layer.weight_axis == 0:  # the weight stands on the left
                x = np.swapaxes(x, -1, -2)
            return _thinned(x.reshape(1, math.prod(x.shape[:-1]), x.shape[-1]), limit)
        top, left, bottom, right = self.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        height, width = ((size - 1) * dilation + 1 for size, dilation in zip(self.shape[2:], self.dilations, strict=True))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        windows = windows[:, :, :: self.strides[0], :: self.strides[1], :: self.dilations[0], :: self.dilations[1]]
        n, _, rows, columns = windows.shape[:4]
        n_at, row_at, column_at = np.unravel_index(_spaced(n * rows * columns, limit), (n, rows, columns))
        taken = windows[n_at, :, row_at, column_at]  # (positions, channels, height, width)
        return taken.reshape(len(taken), self.groups, math.prod(self.shape[1:])).transpose(1, 0, 2)

    def matrices(self, weight: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return what has the weight's shape as matrices, (groups, inputs, outputs)."""
        if self.layer.op_type == "Conv":
            return weight.reshape(self.groups, self.shape[0] // self.groups, -1).transpose(0, 2, 1)
        return (weight.T if self.layer.weight_axis == 0 else weight)[None]

    def weight(self, matrices: NDArray[np.int8]) -> NDArray[np.int8]:
        """Undo ``matrices``."""
        if self.layer.op_type == "Conv":
            return np.ascontiguousarray(matrices.transpose(0, 2, 1).reshape(self.shape))
        return np.ascontiguousarray(matrices[0].T if self.layer.weight_axis == 0 else matrices[0])


def product_of(layer: Layer, node: onnx.NodeProto, shape: tuple[int, ...]) -> Product | None:
    """Return how a layer multiplies; None where that is not a product of rows and one matrix: transposed and other convolutions.

    Args:
        layer: A layer.
        node: Its own node.
        shape: Of its weight.
    """
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if layer.kind is not LayerKind.WEIGHTED or layer.weight_axis is None:
        return None
    if layer.op_type in ("MatMul", "Gemm"):
        plain = len(shape) == 2 and not attributes.get("transA")
        return Product(layer, shape) if plain else None
    if layer.op_type != "Conv" or len(shape) != 4 or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    return Product(
        layer,
        shape,
        groups=int(attributes.get("group", 1)),
        strides=tuple(attributes.get("strides", (1, 1))),
        dilations=tuple(attributes.get("dilations", (1, 1))),
        pads=tuple(attributes.get("pads", (0, 0, 0, 0))),
    )


def _thinned(rows: Floats, limit: int) -> Floats:
    return rows if rows.shape[1] <= limit else rows[:, _spaced(rows.shape[1], limit)]


def _spaced(count: int, limit: int) -> NDArray[np.int64]:
    """Return at most ``limit`` indices of ``count``, evenly spaced."""
    return np.arange(count, dtype=np.int64) if count <= limit else np.linspace(0, count - 1, limit).astype(np.int64)
