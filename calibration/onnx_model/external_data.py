"""Loading weights that an ONNX file keeps in other files, only from its own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from calibration.errors import InvalidModelError

_TOGETHER = "Upload a .zip of the .onnx file together with its external data files, in one folder."


def load_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Read each external tensor of ``model`` into it.

    Args:
        model: The model; changed in place.
        folder: The folder of the .onnx file. Data outside of it, also through a link, are refused.

    Raises:
        InvalidModelError: A data file is missing, too short, or outside the folder.
    """
    for tensor in all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        info = {entry.key: entry.value for entry in tensor.external_data}
        location = info.get("location", "")
        path = _inside(folder, location, tensor.name)
        offset, length = _span(info, tensor.name)
        size = path.stat().st_size
        if length is None:
            length = max(size - offset, 0)
        if offset + length > size:
            raise InvalidModelError(
                f"external data '{location}' of tensor '{tensor.name}': {size} bytes found, {offset + length} expected",
                fix="The data file is not complete or belongs to another model: " + _TOGETHER,
            )
        with path.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.ClearField("external_data")


def _inside(folder: Path, location: str, tensor: str) -> Path:
    pure = PurePosixPath(location.replace("\\", "/"))
    escapes = pure.is_absolute() or PureWindowsPath(location).drive != "" or ".." in pure.parts
    if not location or "\0" in location or escapes:
        raise InvalidModelError(
            f"external data '{location}' of tensor '{tensor}': points outside the model's folder",
            fix="Save the model again with onnx.save_model(..., save_as_external_data=True, location='weights.data').",
        )
    path = folder / pure
    if not _is_file(path):
        raise InvalidModelError(f"external data '{location}' of tensor '{tensor}': file not found beside the model", fix=_TOGETHER)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidModelError(f"external data '{location}' of tensor '{tensor}': is a link that leaves the model's folder", fix=_TOGETHER)
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no name of a file: it is too long
        return False


def _span(info: dict[str, str], tensor: str) -> tuple[int, int | None]:
    try:
        offset, length = int(info.get("offset", "0")), int(info["length"]) if "length" in info else None
    except ValueError as exc:
        raise InvalidModelError(
            f"external data of tensor '{tensor}': offset or length is no number: {info}", fix="Export the model again."
        ) from exc
    if offset < 0 or (length is not None and length < 0):
        raise InvalidModelError(f"external data of tensor '{tensor}': negative offset or length: {info}", fix="Export the model again.")
    return offset, length


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield each tensor of the model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: object) -> Iterator[onnx.TensorProto]:
    for node in nodes:  # type: ignore[attr-defined]  # protobuf's repeated field has no public type
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graph_tensors(graph)
