"""What protobuf lets through although no ONNX reader can use it: names that are no text, unknown element types, tensors of a wrong size."""

from __future__ import annotations

import math

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]  # protobuf publishes no types
from google.protobuf.message import Message  # type: ignore[import-untyped]  # as above

from calibration.errors import InvalidModelError
from calibration.graph.weightless import ITEM_BYTES

_DAMAGED = "The file is damaged: export or copy the model again."
_ELEMENT_TYPES = frozenset(onnx.TensorProto.DataType.values())
_CHECKED_TYPES = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING)
_TYPE_FIELDS = ("data_type", "elem_type")
_FREE_TEXTS = ("doc_string", "value")  # that of metadata_props and external_data
_SHOWN_CHARACTERS = 100
MAX_NAME_CHARACTERS = 2000  # of tensors, nodes, operators, domains, axes: they stand in messages, reports and the table of jobs


def check_wellformed(message: Message) -> None:
    """Check every string and element type in ``message``, at any depth.

    Raises:
        InvalidModelError: A string is not UTF-8, a name is longer than ``MAX_NAME_CHARACTERS``, or an element type is none of ONNX's.
    """
    for field in message.DESCRIPTOR.fields:
        if field.type not in _CHECKED_TYPES and field.name not in _TYPE_FIELDS:
            continue  # data above all: to list all fields is to copy them
        if not (field.is_repeated or message.HasField(field.name)):
            continue
        value = getattr(message, field.name)
        values = value if field.is_repeated else (value,)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in values:
                check_wellformed(inner)
        elif field.type == FieldDescriptor.TYPE_STRING:
            for text in values:
                if not isinstance(text, str):
                    raise InvalidModelError(f"model: {message.DESCRIPTOR.name}.{field.name} is not UTF-8 text: {text!r}", fix=_DAMAGED)
                if len(text) > MAX_NAME_CHARACTERS and field.name not in _FREE_TEXTS:
                    raise InvalidModelError(
                        f"model: {message.DESCRIPTOR.name}.{field.name} has {len(text)} characters, at most {MAX_NAME_CHARACTERS} expected:"
                        f" {text[:_SHOWN_CHARACTERS]}...",
                        fix="Give it a shorter name; doc_string and metadata_props may be longer.",
                    )
        elif field.name in _TYPE_FIELDS and value not in _ELEMENT_TYPES:
            raise InvalidModelError(f"model: {message.DESCRIPTOR.name}.{field.name} is {value}, which is no element type", fix=_DAMAGED)


def check_data(tensor: onnx.TensorProto) -> None:
    """Check that ``tensor``, whose data lie in itself, has as many elements as its shape says.

    Raises:
        InvalidModelError: It has not.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise InvalidModelError(f"{_label(tensor)}: negative dimension in {list(tensor.dims)}", fix=_DAMAGED)
    elements = math.prod(tensor.dims)
    width = ITEM_BYTES.get(tensor.data_type)
    raw_bytes = len(tensor.raw_data)  # once: each look copies them
    if raw_bytes and width is not None:
        found, expected, unit = raw_bytes, math.ceil(elements * width), "bytes"
    elif raw_bytes:
        return
    else:
        found, unit = sum(len(getattr(tensor, field)) for field in _DATA_FIELDS), "elements"
        expected = elements * (2 if tensor.data_type in _COMPLEX else 1)
    if found != expected:
        raise InvalidModelError(f"{_label(tensor)}: {found} {unit} found, {expected} expected for shape {list(tensor.dims)}", fix=_DAMAGED)


def _label(tensor: onnx.TensorProto) -> str:
    return f"tensor '{tensor.name}'" if tensor.name else "tensor without a name"


_DATA_FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")
_COMPLEX = (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128)
