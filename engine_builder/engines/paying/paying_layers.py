"""Which layers a low precision is predicted to slow down, before any engine is built: where the target's compiler is known to add kernels.

A layer is left out of a precision where it is predicted to take longer than at the baseline's by ``MOST_EXCESS``, although all its
neighbours have that precision too: with other neighbours there are conversions besides. What a prediction can err by is no reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from calibration.graph.layers import Layer, LayerKind, concrete_shapes
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Capabilities, LayerSizes
from engine_builder.records.calibrated import EligiblePrecisions

MOST_EXCESS = 0.2  # of the time at the baseline's precision: the error of a roofline


@dataclass(frozen=True, slots=True)
class PayingLayers:
    """What is left of the eligible precisions, and what is not."""

    eligible: EligiblePrecisions
    left_out: EligiblePrecisions  # a layer that lost none is missing


def paying_layers(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    eligible: EligiblePrecisions,
    shapes: Mapping[str, tuple[int, ...]],
    target: Capabilities,
) -> PayingLayers:
    """Return the eligible precisions without those that are predicted not to pay; all of them where the target predicts nothing.

    Args:
        model: The prepared model.
        layers: Its layers.
        eligible: What each can take.
        shapes: Of each input of the model in a timed call.
        target: What engines are built for.
    """
    sizes = {} if target.expected_ms is None else sizes_of(model, layers, shapes)
    if target.expected_ms is None or not sizes:
        return PayingLayers(eligible, {})
    before = target.expected_ms(tuple(sizes.values()), target.baseline)
    slower: dict[str, list[Precision]] = {}
    for precision in dict.fromkeys(one for kinds in eligible.values() for one in kinds):
        after = target.expected_ms(tuple(sizes.values()), precision)
        if before is None or after is None:
            continue
        for name, high, low in zip(sizes, before, after, strict=True):
            if precision in eligible.get(name, ()) and low > (1.0 + MOST_EXCESS) * high:
                slower.setdefault(name, []).append(precision)
    kept = {name: tuple(one for one in kinds if one not in slower.get(name, ())) for name, kinds in eligible.items()}
    return PayingLayers({name: kinds for name, kinds in kept.items() if kinds}, {name: tuple(kinds) for name, kinds in slower.items()})


def sizes_of(model: onnx.ModelProto, layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, LayerSizes]:
    """Return the sizes of each convolution by its layer's name; one with a size that does not follow from the inputs' is missing.

    Args:
        model: The prepared model.
        layers: Its layers.
        shapes: Of each input of the model.
    """
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    known = concrete_shapes(model, shapes)
    found = {}
    for layer in layers:
        if layer.kind is not LayerKind.WEIGHTED or layer.op_type != "Conv" or layer.weight is None:
            continue
        read, written = (_concrete(known.get(name)) for name in (layer.inputs[0], layer.output))
        if read and written:
            found[layer.name] = LayerSizes(read, weights[layer.weight], written)
    return found


def _concrete(shape: tuple[int | str | None, ...] | None) -> tuple[int, ...] | None:
    sizes = tuple(size for size in shape or () if isinstance(size, int))
    return sizes if shape and len(sizes) == len(shape) else None
