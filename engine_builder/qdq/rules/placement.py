"""Which tensors get a Q/DQ pair, and for which readers (cases 1, 2 and 5 of ``engine_builder.qdq.onnxruntime_dialect``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx

from calibration.graph.layers import Layer
from calibration.nonfinite import FAR
from calibration.number_formats.precision import Precision, Scheme
from engine_builder.errors import BuildError

MOVING_OPS = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool", "DepthToSpace", "SpaceToDepth"})


def quantized_layers(layers: Sequence[Layer], assignment: Mapping[str, Precision]) -> tuple[Layer, ...]:
    """Return the layers that the assignment gives a precision other than FP32, in the order of ``layers``.

    Raises:
        BuildError: The assignment names an unknown layer, or a precision other than FP32 and those that multiply integers.
    """
    known = {layer.name for layer in layers}
    for name, precision in assignment.items():
        if name not in known:
            raise BuildError(f"assignment: layer {name!r} is not in the model", fix="make the assignment from the layers of this model")
        if precision is not Precision.FP32 and not precision.multiplies_integers:
            raise BuildError(
                f"assignment: layer {name!r} has precision {precision}, expected fp32 or one that multiplies integers",
                fix="choose a precision that the target offers",
            )
    return tuple(layer for layer in layers if assignment.get(layer.name, Precision.FP32) is not Precision.FP32)


def quantized_tensors(quantized: Sequence[Layer], scheme: Scheme) -> dict[str, bool]:
    """Return the tensors that get a pair, each with whether it serves all readers (case 2) or the quantized layers alone (case 1)."""
    tensors: dict[str, bool] = {}
    for layer in quantized:
        for name in layer.inputs:
            tensors.setdefault(name, False)
        if layer.op_type in scheme.quantized_outputs:
            tensors[layer.output] = True
    return tensors


def ranges_of_moved_tensors(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return ``ranges`` with each moved tensor on the range of the farthest tensor upstream that only moves into it (case 5).

    A tensor that reaches the end of float32's range is a mask, which no pair rounds; what a MaxPool leaves of it has a range of its own.
    """
    rounded = {name for name, span in ranges.items() if max(map(abs, span)) <= FAR}
    return {**ranges, **{name: ranges[origin] for name, origin in _origins(model, rounded).items()}}


def tensors_of_one_range(model: onnx.ModelProto, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the tensors of ``names`` that have one range with a tensor, itself first, by the tensor that they are moved from."""
    origins = _origins(model, names)
    groups: dict[str, list[str]] = {name: [name] for name in names if name not in origins}
    for name in names:
        if name in origins:
            groups.setdefault(origins[name], []).append(name)
    return {origin: tuple(group) for origin, group in groups.items()}


def _origins(model: onnx.ModelProto, known: Collection[str]) -> dict[str, str]:
    """Return the farthest tensor of ``known`` upstream of each moved tensor that only moves into it."""
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in MOVING_OPS and node.domain in ("", "ai.onnx")}
    result = {}
    for name in source:
        origin: str | None = source[name]
        while origin is not None:
            if origin in known:
                result[name] = origin
            origin = source.get(origin)
    return result
