"""The layer precisions that a model is made of: drawn by hypothesis (which then shrinks them), from a seed, or replayed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """A sequence of small integers, each below a bound; 0 is always the plainest choice. ``made`` is what was drawn so far."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        """Take a function that returns an integer from 0 to its argument - 1."""
        self._draw = draw
        self.made: list[int] = []

    def below(self, bound: int) -> int:
        """Return an integer from 0 to ``bound`` - 1."""
        if bound == 1:
            return 0
        self.made.append(self._draw(bound))
        return self.made[-1]

    def between(self, low: int, high: int) -> int:
        """Return an integer from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def of(self, options: Sequence[T]) -> T:
        """Return one of the options, the plainest first."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """Return True in that many of 100 cases; False is the plain choice."""
        return self.below(100) >= 100 - percent


def seeded(seed: int) -> Choices:
    """Return the choices of a seed."""
    return Choices(random.Random(seed).randrange)


def replayed(made: Sequence[int]) -> Choices:
    """Return choices that were made before; past their end, or where they no longer fit, the plainest."""
    rest = iter(made)
    return Choices(lambda bound: min(next(rest, 0), bound - 1))


def shrunk(made: Sequence[int], still_fails: Callable[[Sequence[int]], bool], *, tries: int = 200) -> tuple[int, ...]:
    """Return the fewest and smallest choices found that still fail: runs are left out, then single ones made plain.

    Args:
        made: Choices that fail.
        still_fails: Whether a sequence does.
        tries: Most sequences to ask about.
    """
    best, length = tuple(made), len(made) // 2
    while length and tries > 0:
        start = 0
        while start < len(best) and tries > 0:
            cut = (*best[:start], *best[start + length :])
            plain = (*best[:start], *(0 for _ in best[start : start + length]), *best[start + length :])
            for shorter in (cut, plain):
                if shorter != best:
                    tries -= 1
                    if still_fails(shorter):
                        best = shorter
                        break
            else:
                start += length
                continue
            start += 0 if len(best) == len(cut) and best == cut else length
        length //= 2
    return best
