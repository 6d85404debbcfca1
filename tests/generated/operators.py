"""What a model may grow by: an operator, or a block of several as networks have them, with what it can be applied to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from tests.generated.graphs import Attributes, Dim, GraphBuilder, Tensor

# What exporters write in BF16.
_BF16 = {
    "MatMul",
    "Gemm",
    "arithmetic",
    "Sqrt",
    "Abs",
    "Tanh",
    "Sigmoid",
    "Relu",
    "Transpose",
    "flatten",
    "Reshape",
    "Identity",
    "Unsqueeze",
    "Concat",
}
Grow = Callable[[GraphBuilder, Tensor], Tensor]


def any_float(x: Tensor) -> bool:
    """Return whether it holds floats."""
    return x.is_float


@dataclass(frozen=True)
class Operator:
    """One way to grow: ``grow`` adds nodes that read a tensor and returns what they make of it."""

    name: str
    grow: Grow
    accepts: Callable[[Tensor], bool] = any_float
    since: int = 9  # opset
    until: int = 99

    def fits(self, builder: GraphBuilder, x: Tensor) -> bool:
        """Return whether it can be applied."""
        typed = x.kind != TensorProto.BFLOAT16 or self.name in _BF16
        return typed and self.since <= builder.opset <= self.until and self.accepts(x)


def partner(builder: GraphBuilder, x: Tensor) -> Tensor | None:
    """Return another tensor of the same type and shape, the newest first."""
    found = [other for other in reversed(builder.pool) if other.kind == x.kind and other.shape == x.shape and other.name != x.name]
    return builder.choices.of(found) if found else None


def broadcast_constant(builder: GraphBuilder, x: Tensor, low: float, high: float) -> str:
    """Return the name of a constant with values from ``low`` to ``high`` that broadcasts to ``x``: a scalar, or one value a channel."""
    choices = builder.choices
    axis = 1 if x.rank > 2 and choices.chance(50) else x.rank - 1
    if x.rank < 2 or not x.has_fixed(axis) or choices.chance(40):
        return builder.scalar(float(builder.rng.uniform(low, high)), x.kind)
    shape = [x.size(axis), *(1 for _ in range(x.rank - 1 - axis))]
    if choices.chance(20):
        shape = [1] * (x.rank - len(shape)) + shape
    return builder.floats(builder.rng.uniform(low, high, shape), x.kind)


def rest_of(x: Tensor) -> int | None:
    """Return how many values a sample has, None where that is not fixed."""
    return int(np.prod([x.size(axis) for axis in range(1, x.rank)])) if x.has_fixed(*range(1, x.rank)) else None


def axes_form(builder: GraphBuilder, axes: tuple[int, ...], since: int) -> tuple[list[str], Attributes]:
    """Return axes as an input from opset ``since`` on, before as an attribute."""
    return ([builder.ints(*axes)], {}) if builder.opset >= since else ([], {"axes": list(axes)})


def without(shape: tuple[Dim, ...], axes: tuple[int, ...], *, keeps: bool) -> tuple[Dim, ...]:
    """Return a shape with some axes reduced."""
    return tuple(1 if index in axes else size for index, size in enumerate(shape) if keeps or index not in axes)
