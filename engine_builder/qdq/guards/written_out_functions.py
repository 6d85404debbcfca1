"""Finds functions of one tensor, element by element, for which onnxruntime has a kernel: GELU, its tanh form, and x sigmoid(a x).

They are written in many ways: halves before, between or behind, cubes as powers or products, divisions or products. So the nodes around the
curve that depend on one tensor alone are computed on a grid, and what comes out is compared with the functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from engine_builder.qdq.emit.block_layers import DOMAIN
from engine_builder.qdq.guards.written_out import WrittenOut, maker, number_of, only_reader

CURVES = frozenset({"Erf", "Tanh", "Sigmoid"})

Floats = NDArray[np.float64]


def function_at(curve: ir.Node) -> WrittenOut | None:
    """Return the largest function with a kernel around a curve, None where there is none.

    Args:
        curve: A node of one of the operators ``CURVES``.
    """
    for output in reversed(list(_behind(curve))):
        nodes: dict[ir.Node, None] = {}
        tensors: set[ir.Value] = set()
        _collect(output, nodes, tensors)
        if len(tensors) != 1 or len(nodes) > _MOST_NODES or not _is_closed(output, nodes):
            continue
        (tensor,) = tensors
        found = None if tensor.shape is not None and len(tensor.shape) == 0 else _kernel(output, tensor)
        if found is not None:
            operator, attributes = found
            return WrittenOut(output, tuple(nodes), operator, (tensor,), DOMAIN, attributes)
    return None


def _behind(curve: ir.Node) -> Iterator[ir.Value]:
    """Yield what is made of a curve alone, step by step, as far as each step is read once."""
    value = curve.outputs[0]
    for _ in range(_MOST_NODES):
        reader = only_reader(value, *_OPERATORS)
        if reader is None:
            return
        value = reader.outputs[0]
        yield value


def _collect(value: ir.Value, nodes: dict[ir.Node, None], tensors: set[ir.Value]) -> None:
    """Note the element-wise nodes that a value is made by, and the tensors that these begin with."""
    node = maker(value, *_OPERATORS)
    if node is None or len(nodes) > _MOST_NODES:
        tensors.add(value)
        return
    for index, read in enumerate(node.inputs):
        if read is not None and number_of(node, index) is None:
            _collect(read, nodes, tensors)
    nodes[node] = None


def _is_closed(output: ir.Value, nodes: dict[ir.Node, None]) -> bool:
    """Return whether nobody else reads what is made on the way."""
    inner = (made for node in nodes for made in node.outputs if made is not output)
    return all(not made.is_graph_output() and all(use.node in nodes for use in made.uses()) for made in inner)


def _kernel(output: ir.Value, tensor: ir.Value) -> tuple[str, dict[str, float]] | None:
    """Return the operator that computes ``output`` of ``tensor``, and its attributes."""
    with np.errstate(all="ignore"):
        found = _computed(output, tensor)
        if found is None or not np.isfinite(found).all():
            return None
        if np.allclose(found, _GELU, rtol=_NEAR, atol=_NEAR):
            return "Gelu", {}
        if np.allclose(found, _TANH_GELU, rtol=_NEAR, atol=_NEAR):
            return "FastGelu", {}
        share = found[_ONE]  # sigmoid(a) of x sigmoid(a x) at x = 1
        steepness = math.log(share / (1 - share)) if 0 < share < 1 else math.nan
        if np.allclose(found, _GRID / (1 + np.exp(-steepness * _GRID)), rtol=_NEAR, atol=_NEAR):
            return "QuickGelu", {"alpha": round(steepness, _DIGITS)}
    return None


def _computed(value: ir.Value, tensor: ir.Value) -> Floats | None:
    """Return what a value is where the tensor is the grid, None where a node cannot be computed."""
    if value is tensor:
        return _GRID
    node = value.producer()
    if node is None:
        return None
    read: list[Floats] = []
    for index, one in enumerate(node.inputs):
        number = number_of(node, index)
        found = np.full_like(_GRID, number) if number is not None else None if one is None else _computed(one, tensor)
        if found is None:
            return None
        read.append(found)
    return _OPERATORS[node.op_type](*read) if len(read) == _INPUTS.get(node.op_type, 2) else None


def _erf(x: Floats) -> Floats:
    return np.array([math.erf(one) for one in x])


_OPERATORS: Mapping[str, Callable[..., Floats]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Erf": _erf,
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
_INPUTS = {"Erf": 1, "Tanh": 1, "Sigmoid": 1}
_MOST_NODES = 12
_NEAR = 1e-5  # constants are rounded: 1.4142 stands for the root of 2 in many files, and onnxruntime takes it for that
_DIGITS = 6
_GRID: Floats = np.arange(-48, 49) / 8
_ONE = int(np.flatnonzero(_GRID == 1)[0])
_GELU = _GRID * (1 + _erf(_GRID / math.sqrt(2))) / 2
_TANH_GELU = _GRID * (1 + np.tanh(math.sqrt(2 / math.pi) * (_GRID + 0.044715 * _GRID**3))) / 2
