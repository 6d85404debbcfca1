"""Bisection over an order of layer precisions, as a pure state machine.

``k`` layer precisions quantized is a prefix of the order. The search assumes that a budget met with k is met with fewer, and finds the
largest k that is met in at most ceil(log2(n + 1)) questions over n open values. Where the answers are noisy and not monotone the result is
a
boundary: k met and k + 1 not met, as they were answered.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bisection:
    """The largest met prefix lies in [low, high]: ``low`` is known (or assumed) met, everything above ``high`` is known not to be."""

    low: int
    high: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not 0 <= self.low <= self.high:
            raise ValueError(f"bisection between {self.low} and {self.high}: expected 0 <= low <= high")

    def next(self) -> int | None:
        """Return the prefix length to try, None when the boundary is known."""
        return None if self.low == self.high else (self.low + self.high + 1) // 2

    def tell(self, prefix: int, *, met: bool) -> Bisection:
        """Return the state that knows the answer for ``prefix``."""
        if met:
            return Bisection(max(self.low, prefix), max(self.high, prefix))
        return Bisection(min(self.low, prefix - 1), min(self.high, prefix - 1))
