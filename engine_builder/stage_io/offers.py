"""What other budgets would give: request and result of the stage that judges and keeps the engines on the measured front."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from calibration.accuracy.budget import Budget
from calibration.accuracy.verdict import AccuracyVerdict, Selection
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob
from engine_builder.timing import RelativeLatency
from engine_builder.workspace.workspace import FileRef

FRONT = "front"  # folder of the offered engines, one for each fingerprint


@dataclass(frozen=True, slots=True)
class OffersRequest:
    """The engines that may be offered."""

    job: EngineJob
    engines: tuple[Trial, ...]  # safest first, as the search saw them
    latency: Mapping[str, RelativeLatency]  # of each by its fingerprint, to the baseline's
    selection: Selection
    tried: int  # engines with quantized layers that the search scored
    shipped: str | None  # fingerprint of the one that is kept anyway
    always: tuple[str, ...]  # fingerprints of those that are offered even if others beat them
    seconds: float  # for building: past it engines are offered without a file


class NotKept(enum.StrEnum):
    """Why there is no file of an offered engine."""

    NO_TIME = "no_time"  # building it once more would have made the job too long
    FAILED = "failed"  # to build once more


@dataclass(frozen=True, slots=True)
class OfferedEngine:
    """An engine on the front, with the tightest budget that it keeps."""

    fingerprint: str
    latency: RelativeLatency  # to the baseline's
    accuracy: float  # mean score on the samples of the verdict
    keeps: Budget
    verdict: AccuracyVerdict  # at ``keeps``
    size_bytes: int
    precisions: Mapping[str, int]  # layers of each precision
    assignment: FileRef
    engine: FileRef | None  # None for the one that is shipped, and where ``not_kept`` says why
    not_kept: NotKept | None = None


@dataclass(frozen=True, slots=True)
class BudgetOffer:
    """What one budget would give."""

    budget: Budget
    fingerprint: str | None  # of the fastest of the engines that keep it; None: of those on the front none does
    verdict: AccuracyVerdict | None


@dataclass(frozen=True, slots=True)
class OffersResult:
    """What other budgets would give, and the engines for it."""

    engines: tuple[OfferedEngine, ...] = ()  # the fastest first
    budgets: tuple[BudgetOffer, ...] = ()  # the usual ones, the loosest first
