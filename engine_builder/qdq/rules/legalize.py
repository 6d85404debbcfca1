"""An assignment as an engine can carry it out: choices that only pay together are given together or not at all.

1. *Attention.* The two matmuls of an attention take the same 8-bit precision, or neither takes one.
2. *Residual adds.* A residual add in 8 bits reads the stored copy of a tensor that a weighted layer reads in the same precision. Where no
   such layer has that precision in this assignment, the residual add has nothing to read and stays at the baseline.

What is changed is told, layer by layer, so that a report can say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.qdq.rules.attention import attention_groups
from engine_builder.qdq.rules.eligibility import Eligibility


@dataclass(frozen=True, slots=True)
class Change:
    """A layer that gets another precision than was asked for."""

    layer: str
    asked: Precision
    given: Precision
    reason: str


@dataclass(frozen=True, slots=True)
class LegalizedAssignment:
    """The precisions that an engine gets: ``precisions`` has one for every layer."""

    precisions: Mapping[str, Precision]
    changes: tuple[Change, ...]


def legalize(
    prepared: onnx.ModelProto, layers: Sequence[Layer], assignment: Mapping[str, Precision], baseline: Precision = Precision.FP16
) -> LegalizedAssignment:
    """Return the precision of every layer, and the changes that the rules above make.

    Args:
        prepared: The prepared model.
        layers: ``find_layers(prepared)``.
        assignment: Precision by layer name; a layer that is missing has the baseline's.
        baseline: FP16, BF16 or FP32.

    Raises:
        BuildError: An unknown layer, a baseline that is no float, or a precision that the layer may not take by itself
            (``engine_builder.qdq.rules.eligibility``).
    """
    if baseline.is_quantized:
        raise BuildError(f"baseline: {baseline}, expected fp16, bf16 or fp32", fix="low precisions are chosen layer by layer")
    eligibility = Eligibility(prepared, layers, placement=None)
    known = {layer.name: layer for layer in layers}
    for name, precision in assignment.items():
        if name not in known:
            raise BuildError(f"assignment: layer {name!r} is not in the model", fix="make the assignment from the layers of this model")
        reason = eligibility.refusal(known[name], precision)
        if reason is not None:
            raise BuildError(
                f"assignment: layer {name!r} ({known[name].op_type}) has precision {precision}, which it cannot take: {reason}",
                fix=f"leave it in {baseline}",
            )
    precisions = {layer.name: assignment.get(layer.name, baseline) for layer in layers}
    changes: list[Change] = []

    def leave(name: str, reason: str) -> None:
        changes.append(Change(name, precisions[name], baseline, reason))
        precisions[name] = baseline

    for group in attention_groups(prepared, layers):  # rule 1
        chosen = {precisions[name] for name in group}
        for name in group:
            if precisions[name].rounds_inputs and len(chosen) > 1:
                leave(name, f"the matmuls {' and '.join(map(repr, group))} of one attention take 8 bits together or not at all")
    for layer in layers:  # rule 2
        precision = precisions[layer.name]
        if layer.kind is LayerKind.RESIDUAL_ADD and precision.rounds_inputs and not stored_inputs(layer, layers, precisions):
            leave(layer.name, f"no weighted layer of this assignment reads an input of the residual add in {precision}")
    return LegalizedAssignment(precisions, tuple(changes))


def stored_inputs(layer: Layer, layers: Sequence[Layer], precisions: Mapping[str, Precision]) -> tuple[str, ...]:
    """Return the inputs of a residual add that a weighted layer reads in the add's own precision (rule 2)."""
    wanted = precisions[layer.name]
    read = {other.inputs[0] for other in layers if other.kind is LayerKind.WEIGHTED and precisions[other.name] is wanted}
    return tuple(name for name in dict.fromkeys(layer.inputs) if name in read)
