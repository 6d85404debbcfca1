"""How often the processes that share a queue look into it: often while jobs run, seldom while there are none.

The engine asks its database each time, and keeps the time between two looks there too, one for all processes; each takes it over at its
next look. So whoever is free sets it, by what it sees of the jobs table.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dbos import DBOS

BRISK_SECONDS = 0.2  # between two looks while stages, or parts of them, may be handed over
IDLE_SECONDS = 0.5  # a job that comes while there is none begins so much later at most
CALM_SECONDS = 10.0  # without a running job, before the queue counts as idle: between two jobs nothing changes


class QueuePace:
    """Decides on the pace of a queue. Used by one thread."""

    def __init__(self, set_pace: Callable[[bool], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Know of nothing yet.

        Args:
            set_pace: Makes the queue brisk or not; takes a question to the database at least.
            clock: Gives seconds that never go back.
        """
        self._set_pace, self._clock = set_pace, clock
        self._busy_at = -float("inf")
        self._is_brisk: bool | None = None  # as it was set; None: not known

    def saw(self, *, is_busy: bool) -> None:
        """Set the pace by whether jobs run or wait now, where that may change it."""
        if is_busy:
            self._busy_at = self._clock()
        is_brisk = self._clock() - self._busy_at < CALM_SECONDS
        if is_brisk is not self._is_brisk:
            self._set_pace(is_brisk)
            self._is_brisk = is_brisk

    def doubt(self) -> None:
        """Set it at the next call whatever it was: another process may have set it otherwise."""
        self._is_brisk = None


def set_pace(queue: str, *, is_brisk: bool) -> None:
    """Let all processes look into a queue often, or seldom."""
    found = DBOS.retrieve_queue(queue)
    seconds = BRISK_SECONDS if is_brisk else IDLE_SECONDS
    if found is not None and found.polling_interval_sec != seconds:
        found.set_polling_interval_sec(seconds)
