"""Work that a server does now and then, in a thread of its own that takes the processor last."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from service.database.advisory_locks import tried_database_lock
from service.jobs.resources import Deps

logger = logging.getLogger(__name__)

_NICENESS = 10
_JOIN_SECONDS = 2.0


def by_one(deps: Deps, name: str, work: Callable[[], object], is_due: Callable[[], bool] = lambda: True) -> Callable[[], None]:
    """Return work that one process at a time does; the others leave it out.

    Args:
        deps: The server's belongings.
        name: Of the work.
        work: What is to be done.
        is_due: Whether there is anything to do: asked first, by all.
    """

    def turn() -> None:
        if not is_due():
            return
        with tried_database_lock(deps.store.engine, name) as is_ours:
            if is_ours:
                work()

    return turn


class Periodic:
    """Calls a function every so many seconds until the server stops; what it raises is logged, and it is called again."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object], stopping: threading.Event) -> None:
        """Prepare; ``start`` starts.

        Args:
            name: For the log.
            seconds: Between an end and the next call.
            work: What is called.
            stopping: Set when the server is to stop.
        """
        self._name, self._seconds, self._work, self._stopping = name, seconds, work, stopping
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with the first call at once."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the call in progress to end, for a moment; the process may end without it."""
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)  # on Linux of this thread alone
        while not self._stopping.is_set():
            try:
                self._work()
            except Exception:
                logger.exception("%s failed; it is tried again in %s s", self._name, self._seconds)
            self._stopping.wait(self._seconds)
