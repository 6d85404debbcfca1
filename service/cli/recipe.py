"""The command ``recipe``: what a user settled for TensorRT 10, as the files of this project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import InvalidConfigError
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model
from engine_builder.interchange.trtexec_settings import (
    assignment_from_layer_precisions,
    assignment_from_ranges,
    entries_without_layer,
    layers_without_range,
    ranges_from_calibration_cache,
)
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.workspace.workspace import json_bytes


@dataclass(frozen=True, slots=True)
class RecipeRequest:
    """What to read and where to write."""

    model: Path
    layer_precisions: str | None
    calibration_cache: Path | None
    default: Precision  # of layers that the recipe says nothing about
    output: Path  # assignment.json; the ranges go beside it


def write_recipe(request: RecipeRequest, out: Callable[[str], None]) -> None:
    """Write the assignment, as a job's report does, and the ranges of its layers' inputs; say what was passed over.

    Args:
        request: What to read and where to write.
        out: Takes each line for the user.

    Raises:
        InputError: A file or the spec cannot be used.
    """
    if request.layer_precisions is None and request.calibration_cache is None:
        raise InvalidConfigError("recipe: found nothing to read", fix="Give --layer-precisions, --calibration-cache or both.")
    model = read_model(request.model)
    nodes = {node.name for node in model.graph.node}
    layers = find_layers(prepare(model).model)
    ranges = None if request.calibration_cache is None else ranges_from_calibration_cache(_text(request.calibration_cache))
    if request.layer_precisions is None:
        assignment = assignment_from_ranges(layers, ranges or {}, default=request.default)
    else:
        spec = request.layer_precisions
        assignment = assignment_from_layer_precisions(spec, layers, nodes=nodes, default=request.default)
        for entry in entries_without_layer(spec, layers):
            out(f"passed over: {entry} is no layer with a precision of its own")
        if ranges is not None:
            int8 = (name for name, precision in assignment.items() if precision is Precision.INT8)
            without = layers_without_range(int8, layers, ranges)
            assignment = assignment.with_quantized(without, request.default)
            for name in without:
                out(f"{name}: {request.default} instead of int8, since the calibration cache has no range for an input of it")
    _write(request.output, assignment.as_json())
    out(f"{request.output}  {_counts(assignment)}")
    if ranges is not None:
        path = request.output.with_name(f"{request.output.stem}.ranges.json")
        used = {tensor: ranges[tensor] for layer in layers for tensor in layer.inputs if tensor in ranges}
        _write(path, used)
        out(f"{path}  ranges of {len(used)} of the {len(ranges)} tensors in the calibration cache")


def _counts(assignment: PrecisionAssignment) -> str:
    return ", ".join(f"{count} {precision}" for precision, count in assignment.counts().items())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InvalidConfigError(f"calibration cache {path}: {exc.strerror}", fix="Check the path.") from exc
    except UnicodeDecodeError as exc:
        raise InvalidConfigError(
            f"calibration cache {path}: it is not text", fix="Give the calibration cache itself, not an engine or a timing cache."
        ) from exc


def _write(path: Path, value: object) -> None:
    try:
        path.write_bytes(json_bytes(value))
    except OSError as exc:
        raise InvalidConfigError(f"output {path}: {exc.strerror}", fix="Choose a file in a folder that you may write to.") from exc
