"""Which of a node's inputs and outputs follow the type that the node is computed in, from the operator's own schema."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from calibration.graph.opset import STANDARD_DOMAINS

_AS_IT_IS = frozenset({"Cast", "Shape", "Size"})  # they read any type, and what they read does not set what they compute in
_TENSOR = {ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)", ir.DataType.FLOAT: "tensor(float)"}


def has_subgraph(node: ir.Node) -> bool:
    """Return whether the node runs graphs of its own (If, Loop, Scan)."""
    return any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values())


def input_type(node: ir.Node, index: int, kind: ir.DataType, opset: int) -> ir.DataType | None:
    """Return the type that the node reads a float input in; None where it reads it as it is.

    Args:
        node: A node. One of another domain, a plugin's, reads and writes floats in float32.
        index: Place of the input.
        kind: The type that the node is computed in.
        opset: Of the model.
    """
    if node.op_type in _AS_IT_IS:
        return None
    if node.domain not in STANDARD_DOMAINS:
        return ir.DataType.FLOAT
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    return _type_of(schema, _formal(schema.inputs, index).type_str, kind)


def output_type(node: ir.Node, index: int, kind: ir.DataType, opset: int) -> ir.DataType:
    """Return the type of a float output; arguments as for ``input_type``."""
    if node.domain not in STANDARD_DOMAINS:
        return ir.DataType.FLOAT
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    variable = _formal(schema.outputs, index).type_str
    if node.op_type not in ("Cast", "ConstantOfShape") and all(formal.type_str != variable for formal in schema.inputs):
        return ir.DataType.FLOAT  # an attribute names the type: random numbers, EyeLike, the mean that a normalization gives out
    return _type_of(schema, variable, kind)


def _formal(formals: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> onnx.defs.OpSchema.FormalParameter:
    return formals[min(index, len(formals) - 1)]  # the last may be variadic


def _type_of(schema: onnx.defs.OpSchema, variable: str, kind: ir.DataType) -> ir.DataType:
    for constraint in schema.type_constraints:
        if constraint.type_param_str == variable:
            return kind if _TENSOR[kind] in constraint.allowed_type_strs else ir.DataType.FLOAT
    return ir.DataType.FLOAT  # a type of its own, not a variable: the scales of Resize
