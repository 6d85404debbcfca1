"""Counts the time that stages of jobs run for the tenants whose jobs they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from service.errors import StorageError
from service.jobs.quotas.admission import Admission
from service.worker.child_process import StageLimits

logger = logging.getLogger(__name__)


class MeteredChild:
    """Runs a stage as another function does, and counts how long it took, however it ended.

    What was done ahead counts with the trial that uses it, as long as it took then; what nobody uses counts for nobody.
    """

    def __init__(
        self, run_child: Callable[..., dict[str, object]], admission: Admission, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make one.

        Args:
            run_child: Runs a stage in a child process.
            admission: Counts for tenants.
            clock: Gives seconds.
        """
        self._run_child = run_child
        self._admission = admission
        self._clock = clock

    def __call__(
        self,
        stage: str,
        request: Mapping[str, object],
        workspace: Path,
        *,
        limits: StageLimits,
        on_progress: Callable[[float, str], None],
        should_cancel: Callable[[], bool],
    ) -> dict[str, object]:
        """Return the stage's result; the folder's name is the job's id."""

        def run() -> dict[str, object]:
            return self._run_child(stage, request, workspace, limits=limits, on_progress=on_progress, should_cancel=should_cancel)

        if not limits.is_charged:
            return run()
        begun, told = self._clock(), 0.0
        try:
            answer = run()
            told = _seconds_of(answer)
            return answer
        finally:
            seconds = max(self._clock() - begun, told)
            try:
                self._admission.charge(workspace.name, seconds, on_gpu=limits.opens_gpu and not limits.is_gpu_lent)
            except StorageError as error:  # a job is worth more than its bill
                logger.warning("job %s: %.1f s of its stage %s are not counted: %s", workspace.name, seconds, stage, error)


def _seconds_of(answer: Mapping[str, object]) -> float:
    """Return how much work an answer stands for, as it says itself."""
    seconds = answer.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0
