"""How many build routes may be tried, and for how long: what the search left, and by default no longer than the job took until then.

Part of the pipeline and like it deterministic: seconds are those that were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine_builder.config.config import Config
from engine_builder.records.trial import FOLDED, Trial
from engine_builder.search.search import DEFAULT_MAX_TRIALS, MAX_FAILURES

TIMES_USUAL, LEAST_SECONDS = 4.0, 900.0  # what one route may take: so many times what its engine took, and in any case so long


class RouteBudget:
    """Says when to stop, and why. Not thread-safe; deterministic."""

    def __init__(self, config: Config, trials: Sequence[Trial], origin: Trial, seconds: Callable[[], float]) -> None:
        """Start, with nothing spent.

        Args:
            config: The job's settings.
            trials: Of the search.
            origin: The engine that is built again.
            seconds: What the job's stages so far took, as recorded.
        """
        self._usual, self._start, self._seconds = origin.seconds, seconds(), seconds
        self._builds = (config.search.max_trials or DEFAULT_MAX_TRIALS) - sum(trial.order != FOLDED for trial in trials)
        self._most_builds = self._builds
        self._until = config.search.max_seconds
        self._share = self._start if config.builder.build_routes is None else None
        self._took: list[float] = []
        self._failed = 0

    def told(self, seconds: float, *, failed: bool) -> None:
        """Count a route that was tried."""
        self._builds -= 1
        self._took.append(seconds)
        self._failed = self._failed + 1 if failed else 0

    def ended(self) -> str | None:
        """Return why no further route is tried, None where one is."""
        if self._failed >= MAX_FAILURES:
            return f"{MAX_FAILURES} routes in a row failed"
        if self._builds <= 0:
            return f"max_trials leaves no more than {max(self._most_builds, 0)} builds for them"
        left, usual = self._left(), self._mean()
        if left is not None and usual > left:
            return f"of the time for them {max(left, 0.0):.3g} seconds are left, and one takes about {usual:.3g}"
        return None

    def most_seconds(self) -> float:
        """Return how long the next route may take at the most: a build that hangs must end."""
        most = max(TIMES_USUAL * self._usual, LEAST_SECONDS)
        return most if self._until is None else min(most, max(self._until - self._seconds(), 1.0))

    def _mean(self) -> float:
        return sum(self._took) / len(self._took) if self._took else self._usual

    def _left(self) -> float | None:
        limits = [] if self._until is None else [self._until - self._seconds()]
        if self._share is not None:
            limits.append(self._share - (self._seconds() - self._start))
        return min(limits, default=None)
