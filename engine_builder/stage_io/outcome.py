"""The last stage: all that was found goes in, the outcome of the job comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calibration.accuracy.verdict import Selection
from engine_builder.records.build_route import TriedRoutes
from engine_builder.records.stripped_plan import StrippedPlan
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, PredictResult, VerdictResult
from engine_builder.stage_io.measuring import Analysed
from engine_builder.stage_io.offers import OffersResult
from engine_builder.workspace.workspace import FileRef


@dataclass(frozen=True, slots=True)
class SearchSummary:
    """How the search went."""

    ended: str  # why
    trials: int
    seconds: float  # of all stages so far


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Everything that the pipeline gathered."""

    job: EngineJob
    analysed: Analysed | None  # None where the search did not need it
    trials: tuple[Trial, ...]
    finalists: tuple[Trial, ...]  # as they ship, safest first
    verdict: VerdictResult
    selection: Selection
    forecasts: tuple[PredictResult, ...]
    notes: tuple[str, ...]  # of what could not be built or judged
    search: SearchSummary
    offers: OffersResult = field(default_factory=OffersResult)
    model: FileRef | None = None  # as the user gave it, under the user's own name where that is known
    analysis_failures: tuple[str, ...] = ()  # what the analysis could not measure, and what that changes
    are_corrections_left: bool = False  # whether corrections were wanted that the search did not ask for
    routes: TriedRoutes | None = None  # None where no build route was tried
    stripped: StrippedPlan | None = None  # what came of the plan without its weights; None where none was asked for


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What a finished job gives its user."""

    result: Mapping[str, object]  # as the HTTP contract has it
    engine_name: str  # of the file that is downloaded
    engine: FileRef
    artifacts: Mapping[str, FileRef]  # by the name under which each is downloaded
