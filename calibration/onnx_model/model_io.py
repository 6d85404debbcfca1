"""Reading an ONNX file that a user sent, refusing what cannot be optimized, and writing models.

Every way in which a model can be unusable is an InvalidModelError that names the thing, what was found and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf publishes no types

from calibration.errors import InvalidModelError
from calibration.graph.runtime_view import complaint, nodes_of, objection
from calibration.graph.topological_sort import sort_nodes
from calibration.graph.weightless import copy_without, size_bytes, weightless_copy
from calibration.onnx_model.external_data import all_tensors, load_external_data
from calibration.onnx_model.foreign_types import FOREIGN, is_foreign
from calibration.onnx_model.opset_conversion import inlined
from calibration.onnx_model.protobuf_checks import check_data, check_wellformed
from calibration.onnx_model.streamed_writing import write_model
from calibration.onnx_model.supported_models import check_supported
from calibration.onnx_model.unknown_sizes import clear_unknown_sizes

_PROTOBUF_LIMIT_BYTES = 2**31 - 2**20  # protobuf refuses 2 GiB; the graph itself needs a little


_IR_VERSION = 4  # where a file names none: from here on initializers need not be inputs


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of a graph input or output."""

    name: str
    dtype: str  # numpy name: "float32", "float16", "int64", "bool", ...; "object" of what is no tensor of numbers
    shape: tuple[int | str | None, ...]  # int fixed, str symbolic, None unknown
    has_rank: bool = True  # whether the number of axes is known; else the shape is empty


def read_model(path: Path) -> onnx.ModelProto:
    """Return the model in the file, checked, with the external data that lies beside it and its nodes in topological order.

    Args:
        path: An .onnx file; its external data must lie in the same folder or below.

    Raises:
        InvalidModelError: The file is no ONNX model, is damaged, or holds something that cannot be optimized.
    """
    model = _parse(path)
    check_wellformed(model)
    _use_one_name(model)
    check_supported(model)
    load_external_data(model, path.parent)
    clear_unknown_sizes(model)
    for tensor in all_tensors(model):
        check_data(tensor)
    sort_nodes(model.graph)
    detail = complaint(model)
    if detail is not None and objection(inlined(weightless_copy(model)) if model.functions else model) is not None:
        raise InvalidModelError(
            f"model: breaks the ONNX standard: {detail}", fix="Export the model again; check it with onnx.checker.check_model."
        )
    return model


def input_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return the graph inputs that a caller must feed (initializers listed as inputs are not)."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in weights)


def output_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return the graph outputs in order."""
    return tuple(_spec(value) for value in model.graph.output)


def save_model(model: onnx.ModelProto, path: Path, *, limit_bytes: int = _PROTOBUF_LIMIT_BYTES) -> None:
    """Write ``model`` to ``path``, and its weights to ``<name>.data`` beside it when it is too big for one file.

    Files are written under a temporary name and renamed; ``model`` is not changed.

    Args:
        model: The model.
        path: The .onnx file to write.
        limit_bytes: Most bytes of weights in the .onnx file itself.
    """
    if sum(size_bytes(tensor) for tensor in model.graph.initializer) > limit_bytes:
        model = _move_weights(model, path)
    _replace(path, model)


def _parse(path: Path) -> onnx.ModelProto:
    again = "Upload the .onnx file that your exporter wrote (for PyTorch: torch.onnx.export)."
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise InvalidModelError(f"model file '{path.name}': cannot be read: {exc.strerror}", fix="Give the path of an .onnx file.") from exc
    if not data:
        raise InvalidModelError(f"model file '{path.name}': is empty", fix=again)
    missing = _missing_bytes(data)
    if missing:
        raise InvalidModelError(
            f"model file '{path.name}': is truncated: {len(data)} bytes found, at least {len(data) + missing} expected",
            fix="The copy is not complete: copy or upload the file again and compare its size with the original.",
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as exc:
        raise InvalidModelError(f"model file '{path.name}': is not an ONNX model: {_looks_like(data)}", fix=again) from exc
    if not model.HasField("graph") or not (model.ir_version or (model.graph.node and model.opset_import)):
        raise InvalidModelError(f"model file '{path.name}': is not an ONNX model: {_looks_like(data)}", fix=again)
    model.ir_version = model.ir_version or _IR_VERSION
    return model


_SIGNATURES = (
    (b"PK\x03\x04", "found a zip archive (a PyTorch checkpoint?)"),
    (b"\x80", "found a Python pickle"),
    (b"\x89HDF", "found an HDF5 file"),
    (b"\x1f\x8b", "found a gzip archive"),
    (b"<", "found HTML or XML"),
    (b"{", "found JSON"),
    (b"ftrt", "found a TensorRT engine"),
    (b"version https://git-lfs", "found a Git LFS pointer, not the file it stands for"),
)


def _looks_like(data: bytes) -> str:
    if data[4:8] == b"TFL3":
        return "found a TensorFlow Lite model"
    return next((text for start, text in _SIGNATURES if data.startswith(start)), "found other data")


_MODEL_FIELDS = frozenset(field.number for field in onnx.ModelProto.DESCRIPTOR.fields)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _missing_bytes(data: bytes) -> int:
    """Return how many bytes the file lacks, 0 if it is whole or no ONNX model at all: reads the protobuf fields of the top level only."""
    position, fields = 0, 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag >> 3 not in _MODEL_FIELDS:
            return 0
        kind = tag & 7
        if kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _BYTES:
            length, position = _varint(data, position)
            position += length
        else:
            return 0
        fields += 1
    return position - len(data) if fields > 1 else 0


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while position < len(data):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80 or shift > 63:
            return value, position
    return value, len(data) + 1


def _use_one_name(model: onnx.ModelProto) -> None:
    """Call the standard domain "" everywhere, in place; of two versions the last counts, as in onnxruntime."""
    functions = [node for function in model.functions for node in function.node]
    for node in (*nodes_of(model.graph), *functions):
        if node.domain == "ai.onnx":
            node.domain = ""
    for imports in (model.opset_import, *(function.opset_import for function in model.functions)):
        versions = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in imports}
        if len(versions) < len(imports) or any(entry.domain == "ai.onnx" for entry in imports):
            del imports[:]
            imports.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    if is_foreign(value):
        return TensorSpec(value.name, FOREIGN, ())
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, dtype, tuple(_dims(tensor)), tensor.HasField("shape"))


def _dims(tensor: onnx.TypeProto.Tensor) -> Iterator[int | str | None]:
    for dim in tensor.shape.dim:
        yield dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def _move_weights(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    moved = [tensor for tensor in model.graph.initializer if tensor.HasField("raw_data") and size_bytes(tensor) > 0]
    result = copy_without(model, (tensor.name for tensor in moved))
    data = path.with_name(path.name + ".data")
    temporary = data.with_name(data.name + ".partial")
    offset = 0
    try:
        with temporary.open("wb") as file:
            for tensor in moved:
                length = file.write(tensor.raw_data)
                reference = result.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
                reference.data_location = onnx.TensorProto.EXTERNAL
                for key, value in (("location", data.name), ("offset", str(offset)), ("length", str(length))):
                    reference.external_data.add(key=key, value=value)
                offset += length
        os.replace(temporary, data)
    finally:
        temporary.unlink(missing_ok=True)
    return result


def _replace(path: Path, model: onnx.ModelProto) -> None:
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            write_model(model, file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
