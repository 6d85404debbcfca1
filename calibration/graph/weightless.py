"""The weightless copy of a model: the same graph with its big weights left out, small enough to check, convert or infer shapes on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import onnx
import onnx.helper

BIG_BYTES = 1024  # weights above this carry no shape or axis that a conversion could need
_PACKED = {"INT4": 0.5, "UINT4": 0.5, "FLOAT4E2M1": 0.5, "INT2": 0.25, "UINT2": 0.25}  # several in a byte
_UNSIZED = {"UNDEFINED", "STRING", "FLOAT6E2M3", "FLOAT6E3M2"}
ITEM_BYTES: Mapping[int, float] = {  # in raw data, packed
    kind: _PACKED.get(name) or onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    for name, kind in onnx.TensorProto.DataType.items()
    if name not in _UNSIZED
}


def weightless_copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of ``model`` in which each big initializer is a graph input of the same name, type and shape.

    onnx's checker, shape inference and version converter serialize what they get: on the weightless copy they need little memory, at any
    size.
    """
    result = copy_without(model, big_weights(model))
    listed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if is_big(tensor) and tensor.name not in listed:
            result.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return result


def big_weights(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the initializers that a weightless copy leaves out."""
    return frozenset(tensor.name for tensor in model.graph.initializer if is_big(tensor))


def is_big(tensor: onnx.TensorProto) -> bool:
    """Return whether a weightless copy leaves this initializer out."""
    return size_bytes(tensor) > BIG_BYTES


def size_bytes(tensor: onnx.TensorProto) -> int:
    """Return the size of the tensor's data in bytes, external data too.

    That of raw data is told by the shape, where the element type has one size: to look at them is to copy them, and the size is asked for
    over and over.
    """
    is_external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if (tensor.HasField("raw_data") or is_external) and tensor.data_type in ITEM_BYTES:
        elements: int = math.prod(tensor.dims)
        return math.ceil(elements * ITEM_BYTES[tensor.data_type])
    size: int = tensor.ByteSize()
    return size


def copy_without(model: onnx.ModelProto, left_out: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of ``model`` without the initializers named, never copying their data."""
    names = frozenset(left_out)
    result = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(result, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name == "initializer":
            result.graph.initializer.extend(tensor for tensor in value if tensor.name not in names)
        else:
            _copy(result.graph, field.name, value)
    return result


def _copy(target: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    if isinstance(value, str | int | bytes):
        setattr(target, name, value)
    else:
        getattr(target, name).extend(value)
