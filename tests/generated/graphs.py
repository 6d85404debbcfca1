"""A typed builder of ONNX graphs: it knows the type, shape and value bounds of every tensor, so that what it makes is sound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.generated.choices import Choices
from tests.generated.names import NodeNames, TensorNames

Dim = int | str
Array = NDArray[np.generic]
Attributes = dict[str, Any]  # of a node: numbers, texts, lists of them, tensors and graphs
FLOATS: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    TensorProto.DOUBLE: np.dtype(np.float64),
}
# Larger bounds are clipped.
MOST: dict[int, float] = {TensorProto.FLOAT: 1e5, TensorProto.FLOAT16: 500.0, TensorProto.BFLOAT16: 1e4, TensorProto.DOUBLE: 1e5}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph. Its axis 0 counts samples, but for some outputs.

    ``exact``: every correct runtime gives the very same bits, so that a comparison or a rounding of it may decide something.
    """

    name: str
    kind: int  # onnx.TensorProto.DataType
    shape: tuple[Dim, ...]
    low: float
    high: float
    exact: bool = False
    sample_axis: int = 0

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def bound(self) -> float:
        """Largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def is_float(self) -> bool:
        return self.kind in FLOATS

    def has_fixed(self, *axes: int) -> bool:
        """Return whether the sizes of these axes are numbers."""
        return all(isinstance(self.shape[axis], int) for axis in axes)

    def size(self, axis: int) -> int:
        """Return the fixed size of an axis."""
        size = self.shape[axis]
        assert isinstance(size, int), (self, axis)
        return size


@dataclass
class Shared:
    """What a graph and the graphs inside its nodes have in common."""

    choices: Choices
    rng: np.random.Generator
    opset: int
    tensor_names: TensorNames
    node_names: NodeNames
    sizes: dict[str, int]  # of the symbolic dimensions, for the samples that come with the model
    weights: dict[tuple[object, ...], tuple[str, Array]]  # initializers by type and shape, for nodes that share one
    functions: dict[str, onnx.FunctionProto]
    used: list[str]  # operators, in order


class GraphBuilder:
    """Grows one graph. ``pool`` holds what further nodes may read."""

    def __init__(self, shared: Shared, pool: Sequence[Tensor] = (), depth: int = 0) -> None:
        """Begin with tensors that exist: graph inputs, or captured ones inside a node's graph."""
        self.shared = shared
        self.pool = list(pool)
        self.depth = depth
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    @property
    def choices(self) -> Choices:
        return self.shared.choices

    @property
    def rng(self) -> np.random.Generator:
        return self.shared.rng

    @property
    def opset(self) -> int:
        return self.shared.opset

    def inner(self) -> GraphBuilder:
        """Return a builder for a graph inside a node, which may capture everything here."""
        return GraphBuilder(self.shared, self.pool, self.depth + 1)

    # Nodes.

    def nodes_of(
        self, operator: str, inputs: Sequence[Tensor | str], outputs: Sequence[Tensor], *, domain: str = "", **attributes: object
    ) -> tuple[Tensor, ...]:
        """Add a node; its outputs are like those given, with names of their own."""
        made = tuple(replace(output, name=self.shared.tensor_names.new(operator)) if output.name != "" else output for output in outputs)
        names = [item if isinstance(item, str) else item.name for item in inputs]
        kept: Attributes = {key: value for key, value in attributes.items() if value is not None}
        node = helper.make_node(
            operator, names, [output.name for output in made], name=self.shared.node_names.new(operator, self.depth), domain=domain, **kept
        )
        self.nodes.append(node)
        self.shared.used.append(operator if not domain else f"{domain}.{operator}")
        return made

    def node(
        self,
        operator: str,
        inputs: Sequence[Tensor | str],
        like: Tensor,
        *,
        shape: Sequence[Dim] | None = None,
        bounds: tuple[float, float] | None = None,
        kind: int | None = None,
        exact: bool = False,
        domain: str = "",
        **attributes: object,
    ) -> Tensor:
        """Add a node with one output, which is like ``like`` but for what is given."""
        low, high = (like.low, like.high) if bounds is None else bounds
        new = Tensor(
            "new", like.kind if kind is None else kind, like.shape if shape is None else tuple(shape), float(low), float(high), exact
        )
        return self.nodes_of(operator, inputs, [new], domain=domain, **attributes)[0]

    # Constants.

    def constant(self, array: Array, hint: str = "const") -> str:
        """Return the name of a constant: an initializer, or the output of a Constant."""
        array = np.asarray(array)
        name = self.shared.tensor_names.new(hint)
        if self.choices.chance(12):
            tensor = numpy_helper.from_array(array, "" if self.choices.chance(50) else name)
            self.nodes.append(
                helper.make_node("Constant", [], [name], name=self.shared.node_names.new("Constant", self.depth), value=tensor)
            )
        else:
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        """Return the name of a constant row of int64."""
        return self.constant(np.array(values, np.int64), "sizes")

    def scalar(self, value: float, kind: int = TensorProto.FLOAT) -> str:
        """Return the name of a constant without axes, or sometimes with one."""
        return self.constant(np.full((1,) if self.choices.chance(30) else (), value, dtype_of(kind)), "scalar")

    def floats(self, values: Array, kind: int) -> str:
        """Return the name of a constant of a float type."""
        return self.constant(np.asarray(values).astype(FLOATS[kind]), "values")

    def weight(self, shape: Sequence[int], kind: int, *, fan_in: int, axis: int = 0) -> tuple[str, Array]:
        """Return the name and values of a weight, (..., out on ``axis``, ...), like a trained one: scaled by fan-in, channels uneven."""
        spread = self.choices.of((0.0, 0.4, 1.0))
        gains = np.exp(spread * self.rng.normal(size=[size if index == axis else 1 for index, size in enumerate(shape)]))
        array = self.rng.normal(size=shape) * np.minimum(gains, 4.0) / math.sqrt(max(fan_in, 1))
        if self.choices.chance(8):  # a dead channel
            array[(slice(None),) * (axis % len(shape)) + (0,)] = 0.0
        array = array.astype(FLOATS[kind])
        key = (kind, *shape)
        if key in self.shared.weights and self.choices.chance(25):
            name, earlier = self.shared.weights[key]
            return name, earlier.astype(np.float64)
        name = self.constant(array, "weight")
        if self.depth == 0:
            self.shared.weights[key] = (name, array)
        return name, array.astype(np.float64)

    # What operators need.

    def concrete(self, shape: Sequence[Dim]) -> tuple[int, ...]:
        """Return the sizes with every symbol replaced."""
        return tuple(dim if isinstance(dim, int) else self.shared.sizes[dim] for dim in shape)

    def derived(self, size: Dim, function: object) -> Dim:
        """Return what becomes of an axis: a number of a number, a new symbol of a symbol."""
        assert callable(function)
        if isinstance(size, int):
            return int(function(size))
        symbol = f"{size}_{len(self.shared.sizes)}"
        self.shared.sizes[symbol] = int(function(self.shared.sizes[size]))
        return symbol

    def calm(self, x: Tensor, most: float | None = None) -> Tensor:
        """Return ``x`` with its bound brought below ``most``, by default where its type is safe."""
        most = MOST[x.kind] if most is None else most
        if x.bound <= most:
            return x
        way = self.choices.below(3)
        if way == 1 and most >= 1.0:
            return self.node("Tanh", [x], x, bounds=(-1.0, 1.0))
        if way == 2 and most >= 1.0:
            return self.node("Sigmoid", [x], x, bounds=(0.0, 1.0))
        return self.clip(x, -min(most, 20.0), min(most, 20.0))

    def clip(self, x: Tensor, low: float | None, high: float | None) -> Tensor:
        """Return ``x`` through a Clip, in the form of the opset."""
        bounds = (
            x.low if low is None else min(max(x.low, low), math.inf if high is None else high),
            x.high if high is None else max(min(x.high, high), -math.inf if low is None else low),
        )
        if self.opset < 11:
            return self.node("Clip", [x], x, bounds=bounds, exact=x.exact, min=low, max=high)
        limits = ["" if limit is None else self.constant(np.array(limit, FLOATS[x.kind]), "limit") for limit in (low, high)]
        while limits and not limits[-1]:
            limits.pop()
        return self.node("Clip", [x, *limits], x, bounds=bounds, exact=x.exact)

    def cast(self, x: Tensor, kind: int) -> Tensor:
        """Return ``x`` as another type."""
        return x if x.kind == kind else self.node("Cast", [x], x, kind=kind, exact=x.exact, to=kind)


def dtype_of(kind: int) -> np.dtype[np.generic]:
    """Return the numpy type of an ONNX type."""
    return FLOATS[kind] if kind in FLOATS else np.dtype(helper.tensor_dtype_to_np_dtype(kind))


def value_info(tensor: Tensor, *, has_shape: bool = True, dims: Mapping[str, str] | None = None) -> onnx.ValueInfoProto:
    """Return how a graph declares the tensor; ``dims`` renames symbols, an empty name leaves the size unknown."""
    known = dims or {}
    shape = [known.get(dim, dim) or None if isinstance(dim, str) else dim for dim in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, tensor.kind, shape if has_shape else None)
