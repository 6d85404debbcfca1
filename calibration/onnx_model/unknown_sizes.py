"""Sizes that exporters write for an axis whose size they do not know, and that are no sizes: below 1, or called ``?`` or nothing.

Each such axis is one of its own: two axes that are both called ``?`` need not have the same size.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

UNKNOWN_NAMES = frozenset({"", "?", "-1", "none", "null", "unk", "unknown", "dynamic"})  # in lower case


def clear_unknown_sizes(model: onnx.ModelProto) -> None:
    """Leave open, in place, every size of an input, an output or a tensor between that is unknown."""
    for value in _values(model.graph):
        kind = value.type.tensor_type
        for dim in kind.shape.dim:
            if is_unknown(dim):
                dim.Clear()


def is_unknown(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Return whether a dimension says nothing about the size."""
    if dim.HasField("dim_value"):
        return dim.dim_value < 1
    return dim.HasField("dim_param") and dim.dim_param.strip().lower() in UNKNOWN_NAMES


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type"):
            yield value
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _values(inner)
