"""Whether the server can do its work now: room on the disk, a database that can be written to, and a worker that takes what waits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import sqlalchemy as sa

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
        """Return what is wrong by the part that it is wrong with: disk, database, worker, server; empty means ready."""
        if self._deps.stopping.is_set():
            return {"server": "it stops"}
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= _FRESH_SECONDS:
            self._found = self._look(now)
            self._looked_at = now
        return self._found

    def _look(self, now: float) -> dict[str, str]:
        settings, found = self._deps.settings, {}
        free = shutil.disk_usage(settings.data_dir).free
        if free < settings.min_free_bytes:
            found["disk"] = f"{free} bytes are free, uploads leave {settings.min_free_bytes}"
        try:
            self._deps.store.check_writable(_LOCK_SECONDS)
            counts = self._deps.store.counts()
        except sa.exc.SQLAlchemyError as exc:
            return {**found, "database": str(getattr(exc, "orig", None) or type(exc).__name__)}
        is_waiting = bool(counts.get(JobState.QUEUED)) and not counts.get(JobState.RUNNING)
        self._waiting_since = (self._waiting_since if self._waiting_since is not None else now) if is_waiting else None
        if self._waiting_since is not None and now - self._waiting_since >= _PATIENCE_SECONDS:
            found["worker"] = f"{counts[JobState.QUEUED]} jobs wait, and none was begun for {now - self._waiting_since:.0f} s"
        return found


_FRESH_SECONDS = 1.0
_LOCK_SECONDS = 2.0  # that another process may hold the database
_PATIENCE_SECONDS = 30.0
