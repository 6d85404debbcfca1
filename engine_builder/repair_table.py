"""What the repairs of a job are, and what each was found to be worth."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from calibration.codec import value_from_json
from calibration.smoothing import Smoothing
from engine_builder.workspace import FileRef, StageContext


class RepairKind(enum.StrEnum):
    """What is done to make low layers less lossy."""

    SMOOTHING = "smoothing"  # calibration.smoothing
    BIAS_CORRECTION = "bias correction"  # calibration.bias_correction


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair that was tried, with the loss before and after it on calibration samples that it was not fitted to."""

    what: RepairKind
    where: tuple[str, ...]  # layers
    loss_before: float  # smoothing: sum of the losses of each of these layers alone in low precision; else of the whole engine
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


def read_repairs(request: Mapping[str, object], context: StageContext) -> RepairTable:
    """Return the table that the stage ``repair`` wrote; an empty one where repairs are switched off."""
    ref = request.get("repairs")
    if ref is None:
        return RepairTable()
    return value_from_json(RepairTable, context.workspace.read_json(value_from_json(FileRef, ref)))
