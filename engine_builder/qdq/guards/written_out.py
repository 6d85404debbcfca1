"""A pattern of nodes that one operator of onnxruntime computes, and how its nodes are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.graph_passes.folding.channels import constant_of


@dataclass(frozen=True, slots=True)
class WrittenOut:
    """What stands in the graph, and what may stand in its place."""

    output: ir.Value  # what the pattern makes
    nodes: Sequence[ir.Node]  # of the pattern; nobody else reads what is made on the way
    operator: str
    inputs: Sequence[ir.Value]  # of the operator; the first is the tensor that the pattern reads
    domain: str = ""
    attributes: Mapping[str, float | int] = field(default_factory=dict)


def number_of(node: ir.Node, index: int) -> float | None:
    """Return the one number, of no axes or one, that a constant input holds; None where it is no such input."""
    constant = constant_of(node, index)
    if constant is None or constant.size != 1 or constant.ndim > 1:
        return None
    return float(np.asarray(constant).reshape(-1)[0])


def floats_of(value: ir.Value | None) -> NDArray[np.float32] | None:
    """Return a constant of floats, None where the value is none."""
    if value is None or not value.is_initializer() or value.const_value is None or value.dtype != ir.DataType.FLOAT:
        return None
    return np.asarray(value.const_value.numpy(), dtype=np.float32)


def only_reader(value: ir.Value, *operators: str) -> ir.Node | None:
    """Return the one node of these operators that reads a value, at one place; None where there are others, or the model gives it out."""
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type not in operators:
        return None
    return uses[0].node


def maker(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """Return the node that makes a value, where it is of these operators."""
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type in operators and producer.domain in ("", "ai.onnx") else None
