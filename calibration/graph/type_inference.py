"""Types and shapes of every tensor: onnx's inference, and what the operators' own schemas say where that has no rule.

1. onnx infers nothing for some operators (GroupNormalization since opset 21), and with them nothing for all that comes after. While it
   runs, an operator with the same inputs and a result of the same type and shape stands in for each of them.
2. What is still without a type has the type that the operator's schema ties to one of its inputs, names outright, or leaves to an
   attribute. Shapes are not told that way: they stay unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import onnx
from onnx import TensorProto

from calibration.graph.opset import STANDARD_DOMAINS, opset_version

_STAND_INS = {"GroupNormalization": "InstanceNormalization", "MeanVarianceNormalization": "Identity"}
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


class _Operator(Protocol):
    """A node, of onnx or of onnx_ir."""

    op_type: str


def inferred(model: onnx.ModelProto, *, data_prop: bool = False) -> onnx.ModelProto:
    """Return a copy of a model with the type of every tensor noted, and the shape of those that it can be told of.

    Args:
        model: A model, or its weightless copy; what it notes already is kept.
        data_prop: Whether to follow the values of shapes too.
    """
    with standing_in(model.graph.node):
        result = onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
    for node, original in zip(result.graph.node, model.graph.node, strict=True):
        node.op_type = original.op_type
    note_missing_types(result)
    return result


@contextmanager
def standing_in(nodes: Iterable[_Operator]) -> Iterator[None]:
    """Give nodes that onnx has no rule for the name of an operator that it has one for, until the block ends."""
    replaced = [(node, node.op_type) for node in nodes if node.op_type in _STAND_INS]
    for node, name in replaced:
        node.op_type = _STAND_INS[name]
    try:
        yield
    finally:
        for node, name in replaced:
            node.op_type = name


def note_missing_types(model: onnx.ModelProto) -> None:
    """Note in place, for each tensor of the main graph that no type is noted of, the type that case 2 tells."""
    graph = model.graph
    noted = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output) if _may_be_tensor(value)}
    types = {name: kind.elem_type for name, kind in noted.items() if kind.elem_type}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    opset = opset_version(model)
    for node in graph.node:
        for index, name in enumerate(node.output):
            if not name or name in types:
                continue
            kind = _told_by_schema(node, index, types, opset)
            if kind:
                types[name] = kind
                note = noted[name] if name in noted else graph.value_info.add(name=name).type.tensor_type
                note.elem_type = kind


def _may_be_tensor(value: onnx.ValueInfoProto) -> bool:
    return value.type.WhichOneof("value") in (None, "tensor_type")


def _told_by_schema(node: onnx.NodeProto, index: int, types: Mapping[str, int], opset: int) -> int:
    """Return the element type of an output, 0 where the schema does not tell it."""
    if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, opset):
        return 0
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    variable = schema.outputs[min(index, len(schema.outputs) - 1)].type_str
    if variable.startswith("tensor("):
        return _element_type(variable)
    for place, name in enumerate(node.input):
        if name in types and schema.inputs[min(place, len(schema.inputs) - 1)].type_str == variable:
            return types[name]
    allowed = next((one.allowed_type_strs for one in schema.type_constraints if one.type_param_str == variable), [])
    if len(allowed) == 1:
        return _element_type(allowed[0])
    return int(next((attribute.i for attribute in node.attribute if attribute.name in _TYPE_ATTRIBUTES), 0))


def _element_type(text: str) -> int:
    """Return the element type that a schema writes as ``tensor(float)``."""
    word = text.removeprefix("tensor(").removesuffix(")").upper()
    return int(TensorProto.DataType.Value(word)) if word in TensorProto.DataType.keys() else 0  # noqa: SIM118  # no mapping of Python's
