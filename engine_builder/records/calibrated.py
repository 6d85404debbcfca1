"""A float model with what was measured to quantize it: what probes and engines are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeTable
from engine_builder.records.corrections import CorrectionTable
from engine_builder.records.inspection import PreparedModel
from engine_builder.workspace.workspace import FileRef, Workspace

# The low precisions that each layer can take, in the target's order, by the layer's name; a layer that can take none is missing.
EligiblePrecisions = Mapping[str, tuple[Precision, ...]]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Files of a job: the model, its calibration samples, and what was found on them."""

    model: FileRef  # a ``PreparedModel``
    calibration: FileRef
    ranges: FileRef  # a ``RangeTable``
    eligible: EligiblePrecisions
    last_resorts: tuple[Precision, ...] = ()  # precisions whose engines are tried only where faster ones miss the budget
    slower: EligiblePrecisions = field(default_factory=dict)  # what layers could take, too, and is predicted to be slower
    corrections: FileRef | None = None  # a ``CorrectionTable``; None before there is one, and where corrections are switched off


def read_model_record(of: Calibrated, workspace: Workspace) -> PreparedModel:
    """Return the prepared model's record."""
    return workspace.read_value(PreparedModel, of.model)


def read_corrections(of: Calibrated, workspace: Workspace) -> CorrectionTable:
    """Return the corrections of the job; an empty table where there are none."""
    return CorrectionTable() if of.corrections is None else workspace.read_value(CorrectionTable, of.corrections)


def read_ranges(of: Calibrated, workspace: Workspace) -> RangeTable:
    """Return the range table, with the ranges that corrections chose in the place of those first measured."""
    table = workspace.read_value(RangeTable, of.ranges)
    return replace(table, ranges={**table.ranges, **read_corrections(of, workspace).ranges})


def layer_precisions_of(layers: Sequence[Layer], eligible: EligiblePrecisions) -> tuple[LayerPrecision, ...]:
    """Return every choice that the search has, in graph order."""
    return tuple(LayerPrecision(layer.name, precision) for layer in layers for precision in eligible.get(layer.name, ()))
