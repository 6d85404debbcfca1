"""Gets the verdict, also where an engine that was built and run in the search fails now that it is built and timed beside others.

Part of the pipeline and like it deterministic: it asks for stages and handles their requests and results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calibration.accuracy.verdict import Selection
from engine_builder.errors import EngineError
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.pipeline.stage_table import VERDICT
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import EngineJob, VerdictRequest, VerdictResult

TIMED_FINALISTS = 3


def final_verdict(
    finalists: Sequence[Trial], job: EngineJob, selection: Selection, driver: RunStage, *, tried: int
) -> tuple[VerdictResult, tuple[str, ...]]:
    """Return the result of the stage ``verdict`` and a note on every attempt at it that failed.

    After a failure one engine alone is timed with the baseline, then the fastest finalist is left out, and so on, down to the baseline
    alone: a failure costs an engine, not the job.

    Args:
        finalists: Trials, safest first.
        job: The job, with the baseline that ships.
        selection: Which samples the verdict is from.
        driver: Runs a stage.
        tried: Engines with quantized layers that the search scored.

    Raises:
        EngineError: Not even the baseline can be judged.
    """
    notes: list[str] = []
    end = VERDICT.progress[1]
    for number, (left, timed) in enumerate(_attempts(finalists)):
        key, span = (f"verdict/{number}", (end, end)) if number else (VERDICT.name, VERDICT.progress)
        try:
            return run(driver, VERDICT, VerdictRequest(job, left, selection, timed, tried), key=key, span=span), tuple(notes)
        except EngineError as error:
            if not left:
                raise
            notes.append(f"judging {len(left)} finalists and timing up to {timed} failed, so fewer were taken: {error.detail}")
    raise AssertionError("the last attempt has no finalists: it returns or raises")


def _attempts(finalists: Sequence[Trial]) -> Iterator[tuple[tuple[Trial, ...], int]]:
    """Yield which finalists are judged and how many of them are timed at most."""
    if finalists:
        yield tuple(finalists), TIMED_FINALISTS
    for count in range(len(finalists), -1, -1):
        yield tuple(finalists[:count]), 1
