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


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair that was tried, with the loss before and after it on calibration samples that it was not fitted to."""

    what: RepairKind
    where: tuple[str, ...]  # layers
    loss_before: float  # sum of the losses of each of these layers alone in low precision
    loss_after: float
    gain_error: float  # standard error of the difference
    samples: int
    kept: bool


@dataclass(frozen=True, slots=True)
class RepairTable:
    """The repairs that every engine of a job may use, and everything that was tried for them."""

    smoothings: tuple[Smoothing, ...] = ()
    tried: tuple[Repair, ...] = ()


def read_repairs(request: Mapping[str, object], context: StageContext) -> RepairTable:
    """Return the table that the stage ``repair`` wrote; an empty one where repairs are switched off."""
    ref = request.get("repairs")
    if ref is None:
        return RepairTable()
    return value_from_json(RepairTable, context.workspace.read_json(value_from_json(FileRef, ref)))
