"""The corrections of a job's engines: what costs next to nothing first, the others when the search first asks for them.

Biases are corrected in every engine. The other corrections (ranges, SmoothQuant, GPTQ) are measured where they can decide: a search whose
fastest engine keeps the accuracy budget without them never asks. A stage that fails costs these corrections, not the job. Part of the
pipeline and like it deterministic: it asks for stages and handles their requests and results.
"""

from __future__ import annotations

from dataclasses import replace

from engine_builder.backends.base import Capabilities
from engine_builder.config.config import AnalysisWanted, Config
from engine_builder.errors import EngineError
from engine_builder.pipeline import stage_table as table
from engine_builder.pipeline.progress import Progress
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.records.corrections import ChangedLayers
from engine_builder.stage_io.engines import EngineJob
from engine_builder.stage_io.measuring import BiasesRequest, CorrectRequest

SHARE_OF_PROGRESS = 0.05  # of what is left when they are asked for
LEAST_ROOM = 10.0  # for the search, in what the job took before it, to try engines without the corrections that cost something


class Corrections:
    """Keeps the job with the corrections that are in use, and measures the costly ones once. Not thread-safe."""

    def __init__(self, job: EngineJob, driver: RunStage, alike: str | None) -> None:
        """Measure what biases are corrected against, where the user wants corrections.

        Args:
            job: The job, with its ranges and the baseline that engines must beat.
            driver: Runs a stage.
            alike: The GPU's name where only its kind counts.

        Raises:
            OptimizerError: The stage failed, the user's input does not fit, or the job was cancelled.
        """
        self._driver = driver
        self._alike = alike
        self.are_left = job.config.calibration.repair  # whether the costly ones were wanted and not asked for
        self.failures: tuple[str, ...] = ()  # what could not be measured, and what that changes, a sentence each
        self.job = job
        if self.are_left:
            made = run(driver, table.BIASES, BiasesRequest(job.calibrated, job.config.search.seed))
            self.job = replace(job, calibrated=replace(job.calibrated, corrections=made.corrections))

    def measured(self, progress: Progress | None) -> ChangedLayers | None:
        """Measure the costly corrections, which every further engine has, and return what they change; None where that is nothing.

        Only the first call measures; what it found is nothing new to the next ones.

        Args:
            progress: Of the search, a share of which they take; None before the search, when there are no engines to be told apart.

        Raises:
            OptimizerError: The user's input does not fit, or the job was cancelled.
        """
        if not self.are_left:
            return None
        self.are_left = False
        before, config = self.job.calibrated, self.job.config
        settings = config.calibration
        wanted = CorrectRequest(before, settings.method, settings.second_order, config.search.seed, config.target, self._alike)
        span = None if progress is None else progress.take(SHARE_OF_PROGRESS)
        try:
            made = run(self._driver, table.CORRECT, wanted, span=span)
        except EngineError as error:
            self.failures = (f"the stage correct failed, so engines have corrected biases and no other corrections: {error.detail}",)
            return None
        changed = () if progress is None else made.changed
        self.job = replace(self.job, calibrated=replace(before, corrections=made.corrections), changed=changed)
        return ChangedLayers(frozenset(changed), before.corrections) if changed else None


def is_corrected_first(config: Config, capabilities: Capabilities, *, engines: int, seconds: float) -> bool:
    """Return whether all corrections are measured before anything is tried.

    That is so where the user wants everything measured; where accuracy is what is searched for; where building an engine twice would cost
    more than the corrections; and where the limits of the search leave no room for that.

    Args:
        config: The job's settings.
        capabilities: The target's.
        engines: One-format engines, which are tried first.
        seconds: What the job's stages so far took, as recorded.
    """
    limits = config.search
    is_full = config.analysis is AnalysisWanted.FULL
    too_few = limits.max_trials is not None and limits.max_trials <= 1 + engines
    too_short = limits.max_seconds is not None and limits.max_seconds < seconds * LEAST_ROOM
    return is_full or config.objective is not None or capabilities.builds_are_dear or too_few or too_short
