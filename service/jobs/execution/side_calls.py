"""Calls of the database beside the thread that waits for a stage: one that gets no answer keeps nobody from ending the stage in time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class SideCalls:
    """One call at a time, on a thread of its own. Owned by the thread that waits."""

    def __init__(self, seconds: float = 0.5) -> None:
        """Call nothing yet; ``seconds`` is the longest that ``run`` waits."""
        self._seconds = seconds
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def run(self, work: Callable[[], None]) -> bool:
        """Do some work, and wait a while for its end. While the work before is not done this does nothing.

        Returns:
            Whether the work was begun.

        Raises:
            BaseException: What the work raised, or the work before, whose end this call is the first to see.
        """
        if self._thread is not None:
            if self._thread.is_alive():
                return False
            self._raise_error()

        def done() -> None:
            try:
                work()
            except BaseException as error:  # belongs to the thread that waits
                self._error = error

        self._thread = threading.Thread(target=done, name="side call", daemon=True)
        self._thread.start()
        self._thread.join(self._seconds)
        if not self._thread.is_alive():
            self._raise_error()
        return True

    def _raise_error(self) -> None:
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error
