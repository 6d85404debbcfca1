"""Reads a prepared model without its large weights, which stay in the file and are read one by one where they are needed.

A model as a message in memory is all of its weights once more, beside the sessions that compute with them. Here each large weight is a
tensor with external data: path of the file, offset and length, the .onnx file itself where the weights are in there. Only this module
reads them, and ONNX Runtime, which takes them from the file by itself: opening a session so takes half the memory and half the time.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.graph.topological_sort import sort_nodes
from calibration.onnx_model.streamed_writing import delimited_head

LEFT_BYTES = 1 << 18  # of a weight, from which on it stays in the file

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_WEIGHTS = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf


def read_prepared(path: Path, *, left_bytes: int = LEFT_BYTES) -> onnx.ModelProto:
    """Return a prepared model whose large float32 weights stay in its files, which must not change as long as it is used.

    Args:
        path: A model of ours, which was checked before it was written.
        left_bytes: Size of a weight from which on it stays in the file.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        shell = b"".join(_without_weights(data, path, left_bytes))
    model = onnx.ModelProto()
    model.ParseFromString(shell)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = _entry(tensor, "location")
            location.value = str(path.parent / location.value)  # of an absolute path that path
            if not _stays(tensor, int(_entry(tensor, "length").value), left_bytes):
                tensor.CopyFrom(filled(tensor))
    sort_nodes(model.graph)
    return model


def array_of(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    """Return the values of a tensor, those of one that was left in its file too; read-only or a copy."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    path, offset = _entry(tensor, "location").value, int(_entry(tensor, "offset").value)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.fromfile(path, dtype=dtype, count=math.prod(tensor.dims), offset=offset).reshape(tuple(tensor.dims))


def raw_bytes(tensor: onnx.TensorProto) -> bytes:
    """Return what tells the values of two tensors of one type and shape apart: their raw data, or another form of one that has none."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return bytes(tensor.raw_data or tensor.SerializeToString(deterministic=True))
    with Path(_entry(tensor, "location").value).open("rb") as stream:
        stream.seek(int(_entry(tensor, "offset").value))
        return stream.read(int(_entry(tensor, "length").value))


def filled(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return the tensor with its values in it."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=raw_bytes(tensor))


def serialized(model: onnx.ModelProto) -> tuple[bytes, Path | None]:
    """Return a model's bytes for ONNX Runtime, and the folder of the file that its weights stay in; None where all are in the bytes.

    Args:
        model: Below 2 GB without those weights; all of them are in one folder.
    """
    left = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if not left:
        return model.SerializeToString(), None
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    for tensor in shell.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = _entry(tensor, "location")
            location.value = Path(location.value).name
    return shell.SerializeToString(), Path(_entry(left[0], "location").value).parent


def _without_weights(data: mmap.mmap, path: Path, left_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a model whose large weights say where they are in the place of their data."""
    for number, start, begin, end in _fields(data, 0, len(data)):
        if number == _GRAPH:
            parts = list(_graph_without_weights(data, begin, end, path, left_bytes))
            yield delimited_head(_GRAPH, sum(map(len, parts)))
            yield from parts
        else:
            yield data[start:end]


def _graph_without_weights(data: mmap.mmap, begin: int, end: int, path: Path, left_bytes: int) -> Iterator[bytes]:
    for number, start, inside, stop in _fields(data, begin, end):
        if number == _WEIGHTS and stop - inside >= left_bytes:
            shell = _shell(data, inside, stop, path, left_bytes)
            yield delimited_head(_WEIGHTS, len(shell))
            yield shell
        else:
            yield data[start:stop]


def _shell(data: mmap.mmap, begin: int, end: int, path: Path, left_bytes: int) -> bytes:
    """Return a tensor's bytes, of a large one with raw data those of a tensor that says where these are."""
    fields = list(_fields(data, begin, end))
    raw = next(((inside, stop) for number, _, inside, stop in fields if number == _RAW), None)
    if raw is None:
        return data[begin:end]
    tensor = onnx.TensorProto()
    tensor.ParseFromString(b"".join(data[start:stop] for number, start, _, stop in fields if number != _RAW))
    if not _stays(tensor, raw[1] - raw[0], left_bytes):
        return data[begin:end]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", str(path)), ("offset", str(raw[0])), ("length", str(raw[1] - raw[0]))):
        tensor.external_data.add(key=key, value=value)
    return bytes(tensor.SerializeToString())


def _stays(tensor: onnx.TensorProto, size_bytes: int, left_bytes: int) -> bool:
    return bool(tensor.data_type == onnx.TensorProto.FLOAT and size_bytes >= left_bytes)


def _fields(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field of a message: its number, where it starts, where its value begins and where it ends."""
    place = begin
    while place < end:
        start = place
        tag, place = _varint(data, place)
        kind, inside = tag & 7, place
        if kind == _DELIMITED:
            length, inside = _varint(data, place)
            place = inside + length
        elif kind == _VARINT:
            _, place = _varint(data, place)
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} found at byte {start}, expected one of a model that was written by this package")
        yield tag >> 3, start, inside, place


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _entry(tensor: onnx.TensorProto, key: str) -> onnx.StringStringEntryProto:
    found: onnx.StringStringEntryProto = next(entry for entry in tensor.external_data if entry.key == key)
    return found
