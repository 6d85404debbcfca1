"""Lets a job wait for its disk and database instead of failing with them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from service.database.storage_errors import storage_error
from service.errors import StorageError
from service.jobs.faults.health import storage_problem
from service.jobs.resources import Deps
from service.jobs.storage.holds import Hold

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Patience:
    """Runs what a job needs of disk and database. While they cannot be used the job is on hold, and what failed runs again after.

    Where nothing is found to be wrong with them right after such an error (a stage that fills the disk by itself, and leaves room when it
    has failed), it is tried again a few times and then raised. Owned by the thread that runs the job.
    """

    def __init__(self, deps: Deps, job_id: str, why_ended: Callable[[], BaseException | None]) -> None:
        """Wait for nothing yet.

        Args:
            deps: The server's belongings.
            job_id: The job.
            why_ended: Asked while the job waits; what it returns is raised.
        """
        self._deps = deps
        self._job_id = job_id
        self._why_ended = why_ended

    def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, once it does.

        Raises:
            StorageError: Several times, though disk and database could be used.
        """
        unexplained = 0
        while True:
            try:
                return work()
            except Exception as error:
                problem = storage_error(error)
                if problem is None:
                    raise
                unexplained = self.wait(problem, unexplained)

    def wait(self, problem: StorageError, unexplained: int = 0) -> int:
        """Wait until disk and database can be used.

        Args:
            problem: Why.
            unexplained: How often this was called though they could be used.

        Returns:
            The same, after this call.

        Raises:
            StorageError: That was too often.
        """
        found = storage_problem(self._deps)
        if found is None:
            unexplained += 1
            if unexplained > MOST_UNEXPLAINED:
                raise problem
        logger.warning("job %s: on hold: %s", self._job_id, problem.detail)
        until = time.monotonic() + PAUSE_SECONDS * (2**unexplained if found is None else 1)
        try:
            while found is not None or time.monotonic() < until:
                shown = found or problem
                self._deps.store.holds.put(self._job_id, Hold(shown.detail, shown.fix, self._deps.clock()))
                if (ended := self._why_ended()) is not None:
                    raise ended
                self._deps.stopping.wait(PAUSE_SECONDS)
                found = storage_problem(self._deps)
        finally:
            self._deps.store.holds.release(self._job_id)
        logger.info("job %s: goes on", self._job_id)
        return unexplained


MOST_UNEXPLAINED = 3
PAUSE_SECONDS = 0.5
