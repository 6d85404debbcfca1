"""The progress of a part of a job of which nobody knows how long it will be."""

from __future__ import annotations


class Progress:
    """Shares out a range of progress: what comes next covers a share of what is left. Not thread-safe; deterministic."""

    def __init__(self, low: float, high: float) -> None:
        """Start at ``low``; ``high`` is never passed.

        Args:
            low: Progress of the job where this part begins, 0..1.
            high: Where it ends, low..1.
        """
        self.at = low
        self._high = high

    def take(self, share: float) -> tuple[float, float]:
        """Return the range that the next step covers.

        Args:
            share: Of what is left, 0..1.
        """
        start = self.at
        self.at += share * (self._high - start)
        return start, self.at
