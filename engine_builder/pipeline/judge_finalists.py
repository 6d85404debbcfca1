"""Gets the verdict, also where an engine that was built and run in the search fails now that it is built and timed beside others.

Part of the pipeline and like it deterministic: it asks for stages and handles their JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from calibration.codec import json_from_value
from engine_builder.errors import EngineError, StageCancelledError
from engine_builder.pipeline.finalists import Run
from engine_builder.records.trial import Trial

TIMED_FINALISTS = 3


def final_verdict(
    finalists: Sequence[Trial], request: Mapping[str, object], run: Run, span: tuple[float, float]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return the result of the stage ``verdict`` and a note on every attempt at it that failed.

    After a failure one engine alone is timed with the baseline, then the fastest finalist is left out, and so on, down to the baseline
    alone: a failure costs an engine, not the job.

    Args:
        finalists: Trials, safest first.
        request: The request of the stage, but for the finalists.
        run: Runs a stage.
        span: The part of the job's progress.

    Raises:
        EngineError: Not even the baseline can be judged, or the job was cancelled.
    """
    notes: list[str] = []
    for number, (left, timed) in enumerate(_attempts(finalists)):
        name, place = (f"verdict/{number}", (span[1], span[1])) if number else ("verdict", span)
        try:
            return run(name, "verdict", {**request, "finalists": json_from_value(left), "timed": timed}, place), tuple(notes)
        except StageCancelledError:
            raise
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
