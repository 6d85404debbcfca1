"""What the verdict is about: the engines of the search, or, where those were built at a lower level, the baseline and the finalists anew.

Part of the pipeline and like it deterministic: it asks for stages and handles their requests and results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine_builder.errors import EngineError
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.pipeline.stage_table import BASELINE, REBUILD
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import BaselineRequest, EngineJob, RebuildRequest


@dataclass(frozen=True, slots=True)
class FinalEngines:
    """What is judged and timed."""

    job: EngineJob  # with the baseline that ships
    finalists: tuple[Trial, ...]  # safest first
    notes: tuple[str, ...] = ()  # what could not be built again


def final_engines(finalists: Sequence[Trial], job: EngineJob, driver: RunStage) -> FinalEngines:
    """Return the engines that may ship.

    A finalist that cannot be built at the final level is none. If the baseline cannot, there is nothing fair to compare with at that
    level, and the engines of the search are judged.

    Args:
        finalists: Trials, safest first.
        job: The job, with the baseline of the search.
        driver: Runs a stage.
    """
    builder = job.config.builder
    if not builder.rebuilds:
        return FinalEngines(job, tuple(finalists))
    level = f"at optimization level {builder.optimization_level}"
    low, high = REBUILD.progress
    step = (high - low) / (len(finalists) + 1)
    try:
        built = run(driver, BASELINE, BaselineRequest(job, final=True), key="final/baseline", span=(low, low + step))
    except EngineError as error:
        note = f"the baseline could not be built {level}, so the engines of the search, built at {builder.search_level}, were judged: "
        return FinalEngines(job, tuple(finalists), (note + error.detail,))
    final = replace(job, inspection=built.inspection, baseline=built.baseline)
    trials, notes = [], []
    for index, trial in enumerate(finalists, start=1):
        span = (low + step * index, low + step * (index + 1))
        try:
            trials.append(run(driver, REBUILD, RebuildRequest(final, trial), key=f"final/{trial.fingerprint}", span=span))
        except EngineError as error:
            notes.append(f"finalist {trial.fingerprint} could not be built {level}: {error.detail}")
    return FinalEngines(final, tuple(trials), tuple(notes))
