"""What the repairs of a job are, and what each was found to be worth."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import Smoothing
from calibration.codec import value_from_json
from calibration.number_formats.precision import Precision
from calibration.ranges.range_table import RangeTable
from engine_builder.workspace.workspace import FileRef, StageContext


class RepairKind(enum.StrEnum):
    """What is done to make low layers less lossy."""

    RANGE = "range"  # calibration.ranges.estimators
    SMOOTHING = "smoothing"  # calibration.algorithms.smooth_quant
    SECOND_ORDER = "second-order rounding"  # calibration.algorithms.gptq
    BIAS_CORRECTION = "bias correction"  # calibration.algorithms.bias_correction


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair that was tried, with the loss before and after it on calibration samples that it was not fitted to."""

    what: RepairKind
    where: tuple[str, ...]  # layers
    loss_before: float  # sum of the losses of each of these layers alone in low precision; bias correction: of the whole engine
    loss_after: float
    gain_error: float  # standard error of the difference
    samples: int
    kept: bool


@dataclass(frozen=True, slots=True)
class CorrectionData:
    """What the bias correction of any assignment is measured against."""

    means: FileRef  # mean output of each layer's channels in the float model, an array (channels,) by layer
    fitted: tuple[int, ...]  # the calibration samples behind the means
    reference: FileRef  # the compared outputs of the float model on ``held_out``, arrays "0", "1", ...
    held_out: tuple[int, ...]  # calibration samples that decide whether a correction is kept


@dataclass(frozen=True, slots=True)
class RepairTable:
    """The repairs that every engine of a job may use, and everything that was tried for them."""

    smoothings: tuple[Smoothing, ...] = ()
    tried: tuple[Repair, ...] = ()
    correction: CorrectionData | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of tensors that fare better than with min-max
    levels: FileRef | None = None  # integer weights that are not the nearest, an array "precision:layer" each


def read_repairs(request: Mapping[str, object], context: StageContext) -> RepairTable:
    """Return the table that the stage ``repair`` wrote; an empty one where repairs are switched off."""
    ref = request.get("repairs")
    if ref is None:
        return RepairTable()
    return value_from_json(RepairTable, context.workspace.read_json(value_from_json(FileRef, ref)))


def read_ranges(request: Mapping[str, object], context: StageContext) -> RangeTable:
    """Return the range table that the stage ``ranges`` wrote, with the ranges that ``repair`` chose where it ran."""
    table = value_from_json(RangeTable, context.workspace.read_json(value_from_json(FileRef, request["ranges"])))
    return replace(table, ranges={**table.ranges, **read_repairs(request, context).ranges})


def write_levels(levels: Levels, context: StageContext) -> FileRef:
    """Write integer weights to a file that a table can name."""
    return context.workspace.write_arrays("levels.npz", **{f"{precision}:{layer}": array for (layer, precision), array in levels.items()})


def read_levels(table: RepairTable, context: StageContext) -> Levels:
    """Return the integer weights that are not the nearest."""
    if table.levels is None:
        return {}
    found = {}
    for key, array in context.workspace.read_arrays(table.levels).items():
        precision, layer = key.split(":", 1)
        found[layer, Precision(precision)] = cast("NDArray[np.int8]", array)
    return found
