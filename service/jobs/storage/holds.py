"""Which jobs are on hold, and why.

Kept in memory alone: a disk that is full takes no note of it, and after a restart a job finds out by itself whether its disk is usable.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a job waits, in words for its owner, what ends the wait, and since when it waits."""

    reason: str
    fix: str
    since: datetime


class Holds:
    """The holds of unfinished jobs. Safe to share between threads."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._lock = threading.Lock()
        self._holds: dict[str, Hold] = {}

    def put(self, job_id: str, hold: Hold) -> None:
        """Put a job on hold, or change the reason; the moment of the first call stays."""
        with self._lock:
            before = self._holds.get(job_id)
            self._holds[job_id] = hold if before is None else Hold(hold.reason, hold.fix, before.since)

    def release(self, job_id: str) -> None:
        """Let a job go on."""
        with self._lock:
            self._holds.pop(job_id, None)

    def find(self, job_id: str) -> Hold | None:
        """Return why a job waits, if it does."""
        with self._lock:
            return self._holds.get(job_id)

    def refresh(self) -> None:
        """Learn what other processes hold: there are none."""

    def ids(self) -> tuple[str, ...]:
        """Return the jobs on hold."""
        with self._lock:
            return tuple(self._holds)
