"""Whether the server can do its work now: a disk and a database that can be used, and a worker that takes what waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from service.errors import StorageError
from service.jobs.faults.health import is_passing, storage_problem
from service.jobs.records import JobState
from service.jobs.resources import Deps


class Readiness:
    """Looks at most once a second. Safe to share between threads: two may look at once, and find the same."""

    def __init__(self, deps: Deps, clock: Callable[[], float] = time.monotonic) -> None:
        """Look at what belongs to a server; ``clock`` gives seconds."""
        self._deps = deps
        self._clock = clock
        self._looked_at: float | None = None
        self._found: dict[str, str] = {}
        self._waiting_since: float | None = None

    def problems(self) -> dict[str, str]:
        """Return what is wrong by the part that it is wrong with: storage, worker, server; empty means ready."""
        if self._deps.stopping.is_set():
            return {"server": "it stops"}
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= _FRESH_SECONDS:
            self._found = self._look(now)
            self._looked_at = now
        return self._found

    def _look(self, now: float) -> dict[str, str]:
        problem = storage_problem(self._deps, for_uploads=True)
        found = {} if problem is None or is_passing(problem) else {"storage": f"{problem.detail}. {problem.fix}"}
        try:
            counts = self._deps.store.counts()
            workers = None if self._deps.membership is None else self._deps.membership.members.alive()
        except StorageError:
            return found
        if workers is not None and not any(worker.role.takes_jobs for worker in workers):
            found["worker"] = "no process that runs jobs is alive. Start one: `worker --role cpu`."
            return found
        is_begun = counts.get(JobState.RUNNING) or counts.get(JobState.ON_HOLD)
        is_waiting = bool(counts.get(JobState.QUEUED)) and not is_begun
        self._waiting_since = (self._waiting_since if self._waiting_since is not None else now) if is_waiting else None
        if self._waiting_since is not None and now - self._waiting_since >= _PATIENCE_SECONDS:
            found["worker"] = f"jobs wait, and none was begun for {now - self._waiting_since:.0f} s"
        return found


_FRESH_SECONDS = 1.0
_PATIENCE_SECONDS = 30.0
