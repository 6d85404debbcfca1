"""The simulated clock, and the events that move it on."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class Events:
    """What is to happen, each thing at its moment. Of two of the same moment the one that was asked for first comes first."""

    def __init__(self) -> None:
        """Begin at 0 seconds with nothing to come."""
        self.now = 0.0
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def seconds(self) -> float:
        """Return the seconds since the start, as a clock that never goes back."""
        return self.now

    def present(self) -> datetime:
        """Return the present, in UTC."""
        return START + timedelta(seconds=self.now)

    def at(self, moment: float, happen: Callable[[], None]) -> None:
        """Let something happen at a moment, or now where that is past."""
        heapq.heappush(self._heap, (max(moment, self.now), next(self._numbers), happen))

    def after(self, seconds: float, happen: Callable[[], None]) -> None:
        """Let something happen in so many seconds."""
        self.at(self.now + seconds, happen)

    def run(self) -> None:
        """Let everything happen, in its order, until there is nothing left."""
        while self._heap:
            self.now, _, happen = heapq.heappop(self._heap)
            happen()
