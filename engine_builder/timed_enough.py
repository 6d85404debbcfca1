"""When engines were timed for long enough: each is an ``Enough`` of ``timing``, asked after every round.

A ratio is compared with others: the best one so far, a bound. Its standard error must be below a third of its distance to each of
them, where a distance of less than 1% counts as 1%, since engines that close are as good as equal. What decides nothing ends early, what is
near a decision goes on, up to the time that there is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine_builder.timing import LEAST_ROUNDS, MIN_GAIN, Blocks, RelativeLatency, known_middle, relative_of_rounds

ROUGH = 0.02  # largest error of a ratio that decides nothing, as a share of it: what the time model is fitted to has as much of its own
A_THIRD = 1.0 / 3.0  # of the distance to what decides


def is_decided(relative: RelativeLatency, bounds: Iterable[float]) -> bool:
    """Return whether a ratio is known well enough to tell on which side of each bound it is.

    Args:
        relative: The ratio and its error.
        bounds: Other ratios to the same baseline.
    """
    ratio = relative.ratio
    return all(relative.error <= A_THIRD * max(abs(ratio - bound), MIN_GAIN * ratio) for bound in bounds)


@dataclass(frozen=True, slots=True)
class EachKnown:
    """The ratio of every two engines is known, or the latency of the only one."""

    share: float  # of the ratio: its largest standard error

    def __call__(self, blocks: Blocks) -> bool:
        """Return whether that is so."""
        values = list(blocks.values())
        if len(values[0]) < LEAST_ROUNDS:
            return False
        if len(values) == 1:
            middle, error = known_middle(np.asarray(values[0]))
            return error <= self.share * middle
        pairs = (relative_of_rounds(one, other) for one, other in itertools.combinations(values, 2))
        return all(pair.error <= self.share * pair.ratio for pair in pairs)


@dataclass(frozen=True, slots=True)
class TrialKnown:
    """The ratio of one engine to the baseline is known as well as what comes of it asks for."""

    bounds: tuple[float, ...]  # that the search compares it with
    # The lowest ratio so far of what it competes with, None where it competes with nothing: where it is lower, later engines are
    # compared with it, so it must be known to 1% itself.
    best: float | None = None
    engine: str = "engine"
    baseline: str = "baseline"

    def __call__(self, blocks: Blocks) -> bool:
        """Return whether that is so."""
        if len(blocks[self.engine]) < LEAST_ROUNDS:
            return False
        relative = relative_of_rounds(blocks[self.engine], blocks[self.baseline])
        is_best = self.best is not None and relative.ratio < self.best
        if relative.error > (MIN_GAIN if is_best else ROUGH) * relative.ratio:
            return False
        return is_decided(relative, self.bounds if self.best is None else (*self.bounds, self.best))


@dataclass(frozen=True, slots=True)
class FinalistsKnown:
    """It is known which of the engines are faster than the baseline, and how much faster the fastest is than each that is safer."""

    finalists: Sequence[str]  # safest first
    bounds: tuple[float, ...]  # ratios to the baseline that decide what ships
    baseline: str = "baseline"

    def __call__(self, blocks: Blocks) -> bool:
        """Return whether that is so."""
        baseline = blocks[self.baseline]
        if not self.finalists or len(baseline) < LEAST_ROUNDS:
            return EachKnown(MIN_GAIN)(blocks)
        found = {name: relative_of_rounds(blocks[name], baseline) for name in self.finalists}
        if not all(one.error <= MIN_GAIN * one.ratio and is_decided(one, self.bounds) for one in found.values()):
            return False
        fastest = min(self.finalists, key=lambda name: found[name].ratio, default=self.baseline)
        safer = itertools.takewhile(lambda name: name != fastest, self.finalists)
        return all(is_decided(relative_of_rounds(blocks[fastest], blocks[name]), (1.0,)) for name in safer)
