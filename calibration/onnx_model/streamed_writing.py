"""Writes a model one weight at a time: to be serialized in one piece, it would take twice its size once more.

A protobuf message is the sequence of its fields, each with a tag, and where it is a message itself with the number of its bytes. So
fields that are serialized one by one, in the order of their numbers, give the bytes of the message in one piece
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]  # protobuf publishes no types

from calibration.graph.weightless import ITEM_BYTES, is_big, size_bytes

_DELIMITED = 2  # wire type of what has its number of bytes before it
_LOW_BITS, _MORE = 0x7F, 0x80
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_WEIGHTS = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


def write_model(model: onnx.ModelProto, stream: IO[bytes]) -> None:
    """Write the bytes of ``model.SerializeToString(deterministic=True)``, without fields that this version of ONNX does not know.

    Args:
        model: Not changed. Its raw tensors have as many bytes as their shapes say.
        stream: Where to.
    """
    for field, value in model.ListFields():
        if field.number != _GRAPH:
            stream.write(_alone(onnx.ModelProto(), field, value))
            continue
        pieces = tuple(_graph_pieces(model.graph))
        stream.write(delimited_head(_GRAPH, sum(piece.size for piece in pieces)))
        for piece in pieces:
            piece.write(stream)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Some bytes of a graph: those given, or a large weight between them."""

    before: bytes
    weight: onnx.TensorProto | None = None
    after: bytes = b""

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.before) + (0 if self.weight is None else size_bytes(self.weight)) + len(self.after)

    def write(self, stream: IO[bytes]) -> None:
        """Write the bytes."""
        stream.write(self.before)
        if self.weight is not None:
            raw = self.weight.raw_data
            assert len(raw) == size_bytes(self.weight)  # or else what is written before it would be wrong
            stream.write(raw)
        stream.write(self.after)


def _graph_pieces(graph: onnx.GraphProto) -> Iterator[_Piece]:
    for field, value in graph.ListFields():
        if field.number == _WEIGHTS:
            yield from map(_weight_piece, value)
        else:
            yield _Piece(_alone(onnx.GraphProto(), field, value))


def _weight_piece(tensor: onnx.TensorProto) -> _Piece:
    if not tensor.HasField("raw_data") or tensor.data_type not in ITEM_BYTES or not is_big(tensor):
        whole = tensor.SerializeToString(deterministic=True)
        return _Piece(delimited_head(_WEIGHTS, len(whole)) + whole)
    fields = onnx.TensorProto.DESCRIPTOR.fields  # their values one by one: to list them all is to copy the data
    before = _shell(tensor, (field for field in fields if field.number < _RAW))
    after = _shell(tensor, (field for field in fields if field.number > _RAW))
    raw = size_bytes(tensor)
    before += delimited_head(_RAW, raw)
    return _Piece(delimited_head(_WEIGHTS, len(before) + raw + len(after)) + before, tensor, after)


def _shell(tensor: onnx.TensorProto, fields: Iterable[FieldDescriptor]) -> bytes:
    """Return the serialized tensor with these fields alone."""
    shell = onnx.TensorProto()
    for field in fields:
        value = getattr(tensor, field.name)
        if field.is_repeated:
            getattr(shell, field.name).extend(value)
        elif not tensor.HasField(field.name):
            continue
        elif field.message_type is not None:
            getattr(shell, field.name).CopyFrom(value)
        else:
            setattr(shell, field.name, value)
    return bytes(shell.SerializeToString(deterministic=True))


def _alone(message: onnx.ModelProto | onnx.GraphProto, field: FieldDescriptor, value: object) -> bytes:
    """Return one field serialized, by way of an empty message."""
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)
    return bytes(message.SerializeToString(deterministic=True))


def delimited_head(number: int, size: int) -> bytes:
    """Return what comes before the bytes of a field: its tag and how many there are, each as a varint."""
    return _varint(number << 3 | _DELIMITED) + _varint(size)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > _LOW_BITS:
        digits.append(value & _LOW_BITS | _MORE)
        value >>= 7
    digits.append(value)
    return bytes(digits)
