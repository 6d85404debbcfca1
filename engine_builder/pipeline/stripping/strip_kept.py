"""Has what the verdict keeps built without its weights, where that was asked for; whatever goes wrong there costs only that.

Part of the pipeline and like it deterministic: it asks for a stage and handles its request and result.
"""

from __future__ import annotations

from dataclasses import dataclass

from calibration.accuracy.verdict import Selection
from engine_builder.errors import EngineError
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.pipeline.stage_table import STRIP
from engine_builder.records.stripped_plan import StrippedPlan
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, StripRequest, StripResult, VerdictResult


@dataclass(frozen=True, slots=True)
class Kept:
    """What ships."""

    finalists: tuple[Trial, ...]  # safest first, the one that is kept as it ships
    judged: VerdictResult
    stripped: StrippedPlan | None = None  # what came of the plan without its weights; None where none was asked for


def strip_kept(kept: Kept, job: EngineJob, selection: Selection, driver: RunStage, *, tried: int, judged_alone: bool = False) -> Kept:
    """Return what ships: without its weights where that is asked for and no loss, else as the verdict keeps it.

    Args:
        kept: By the verdict.
        job: The job, with the baseline that ships and the budget that the verdict is at.
        selection: Which samples the verdict is from.
        driver: Runs a stage.
        tried: Engines with quantized layers that the search scored.
        judged_alone: Whether the verdict is on one engine, and not on all finalists together.
    """
    if not job.config.builder.strip_weights:
        return kept
    chosen = next((trial for trial in kept.finalists if trial.fingerprint == kept.judged.chosen), None)
    among = kept.finalists if chosen is None or not judged_alone else (chosen,)
    try:
        found: StripResult = run(driver, STRIP, StripRequest(job, among, kept.judged, selection, tried))
    except EngineError as error:
        size = kept.judged.baseline_size_bytes if chosen is None else chosen.size_bytes
        return Kept(kept.finalists, kept.judged, StrippedPlan(size or 0, error.detail))
    shipped = {} if found.chosen is None else {found.chosen.fingerprint: found.chosen}
    return Kept(tuple(shipped.get(trial.fingerprint, trial) for trial in kept.finalists), found.judged, found.plan)
