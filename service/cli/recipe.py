"""The command ``recipe``: what a user settled for TensorRT 10 as the files of this project, and assignments as settings of other tools."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.errors import InvalidConfigError
from calibration.graph.layers import Layer, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import read_model
from engine_builder.config.config import config_from_json
from engine_builder.interchange.modelopt_settings import modelopt_settings, other_modes
from engine_builder.interchange.polygraphy_script import has_types_of_tensorrt, polygraphy_script
from engine_builder.interchange.trtexec_settings import (
    assignment_from_layer_precisions,
    assignment_from_ranges,
    entries_without_layer,
    layers_without_range,
    ranges_from_calibration_cache,
)
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.records.given_assignment import layers_of
from engine_builder.workspace.workspace import json_bytes
from service.intake.assignment_file import assignment_value


@dataclass(frozen=True, slots=True)
class RecipeRequest:
    """What to read and where to write."""

    model: Path
    layer_precisions: str | None
    calibration_cache: Path | None
    default: Precision  # of layers that the recipe says nothing about
    output: Path | None  # assignment.json; the ranges go beside it
    assignment: Path | None = None  # read in the place of the two above
    modelopt: Path | None = None  # settings of ModelOpt to write
    polygraphy: Path | None = None  # script for Polygraphy to write


def write_recipe(request: RecipeRequest, out: Callable[[str], None]) -> None:
    """Write the assignment, as a job's report does, and the ranges of its layers' inputs; say what was passed over.

    Args:
        request: What to read and where to write.
        out: Takes each line for the user.

    Raises:
        InputError: A file or the spec cannot be used.
    """
    is_spec = request.layer_precisions is not None or request.calibration_cache is not None
    if is_spec is (request.assignment is not None):
        raise InvalidConfigError(
            "recipe: found nothing to read"
            if not is_spec
            else "recipe: found an assignment and settings of TensorRT 10, expected one of them",
            fix="Give --layer-precisions, --calibration-cache or both; or --assignment alone.",
        )
    if request.output is request.modelopt is request.polygraphy is None:
        raise InvalidConfigError("recipe: found nothing to write", fix="Give --output, --modelopt or --polygraphy.")
    model = read_model(request.model)
    nodes = {node.name for node in model.graph.node}
    layers = find_layers(prepare(model).model)
    ranges = None if request.calibration_cache is None else ranges_from_calibration_cache(_text(request.calibration_cache))
    assignment = _given(request.assignment, layers) if request.assignment is not None else _settled(request, layers, nodes, ranges, out)
    if request.output is not None:
        _write(request.output, json_bytes(assignment.as_json()))
        out(f"{request.output}  {_counts(assignment)}")
        if ranges is not None:
            path = request.output.with_name(f"{request.output.stem}.ranges.json")
            used = {tensor: ranges[tensor] for layer in layers for tensor in layer.inputs if tensor in ranges}
            _write(path, json_bytes(used))
            out(f"{path}  ranges of {len(used)} of the {len(ranges)} tensors in the calibration cache")
    if request.modelopt is not None or request.polygraphy is not None:
        _export(request, {name: precision for name, precision in assignment.items() if name in nodes}, len(assignment), out)


def _given(path: Path, layers: Sequence[Layer]) -> PrecisionAssignment:
    """Return the assignment of a file, with a precision for every layer."""
    given = config_from_json({"assignment": assignment_value(path)}).assignment
    return PrecisionAssignment(tuple(layers_of(given, [layer.name for layer in layers]).items()))


def _settled(
    request: RecipeRequest,
    layers: Sequence[Layer],
    nodes: Collection[str],
    ranges: Mapping[str, tuple[float, float]] | None,
    out: Callable[[str], None],
) -> PrecisionAssignment:
    """Return what was settled for TensorRT 10."""
    if request.layer_precisions is None:
        return assignment_from_ranges(layers, ranges or {}, default=request.default)
    spec = request.layer_precisions
    assignment = assignment_from_layer_precisions(spec, layers, nodes=nodes, default=request.default)
    for entry in entries_without_layer(spec, layers):
        out(f"passed over: {entry} is no layer with a precision of its own")
    if ranges is None:
        return assignment
    int8 = (name for name, precision in assignment.items() if precision is Precision.INT8)
    without = layers_without_range(int8, layers, ranges)
    for name in without:
        out(f"{name}: {request.default} instead of int8, since the calibration cache has no range for an input of it")
    return assignment.with_quantized(without, request.default)


def _export(request: RecipeRequest, named: Mapping[str, Precision], layers: int, out: Callable[[str], None]) -> None:
    """Write the settings of other tools, which know layers by the names of the file's nodes."""
    if len(named) < layers:
        out(f"passed over: {layers - len(named)} layers whose nodes have no name in the file, by which other tools could know them")
    if request.modelopt is not None:
        settings = modelopt_settings(named)
        _write(request.modelopt, json_bytes(settings))
        others = other_modes(named)
        if others:
            out(f"passed over: ModelOpt quantizes in one mode, {settings['quantize_mode']}; in floats stay {', '.join(others)}")
        out(f"{request.modelopt}  modelopt.onnx.quantization.quantize(onnx_path, **settings)")
    if request.polygraphy is not None:
        foreign = [name for name, precision in named.items() if not has_types_of_tensorrt(precision)]
        if foreign:
            raise InvalidConfigError(
                f"Polygraphy: layer {foreign[0]!r} is {named[foreign[0]]}, which TensorRT does not have",
                fix="Give an assignment for a TensorRT target.",
            )
        _write(request.polygraphy, polygraphy_script(named).encode())
        out(
            f"{request.polygraphy}  polygraphy run MODEL --trt --trt-network-postprocess-script {request.polygraphy} (TensorRT 10 or older)"
        )


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


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise InvalidConfigError(f"output {path}: {exc.strerror}", fix="Choose a file in a folder that you may write to.") from exc
