"""Outputs that are no tensors of numbers: text, sequences, maps, optional values. They are handed through and never compared."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import onnx

from calibration.graph.runtime_view import subgraphs
from calibration.graph.weightless import copy_without

logger = logging.getLogger(__name__)

FOREIGN = "object"  # their dtype, numpy's word


def is_foreign(value: onnx.ValueInfoProto) -> bool:
    """Return whether a graph output has a type, and that of no tensor of numbers."""
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.elem_type == onnx.TensorProto.STRING)


def without_foreign_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with no type written at outputs that are no tensors: onnxruntime infers it, and onnx_ir knows no maps.

    The model itself where it has none, else a copy.
    """
    if not any(_is_no_tensor(value) for value in model.graph.output):
        return model
    result = copy_without(model, ())
    for value in result.graph.output:
        if _is_no_tensor(value):
            value.ClearField("type")
    return result


def foreign_values(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the tensors that onnx's inference finds to be none, subgraphs' too."""
    try:
        typed = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError as exc:  # what the file says of a tensor contradicts what is inferred
        logger.info("types of %s are taken as the file has them: %s", model.graph.name, exc)
        typed = model
    return frozenset(_foreign_names(typed.graph))


def _foreign_names(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        if _is_no_tensor(value):
            yield value.name
    for inner in subgraphs(graph):
        yield from _foreign_names(inner)


def _is_no_tensor(value: onnx.ValueInfoProto) -> bool:
    return value.type.WhichOneof("value") not in (None, "tensor_type")
