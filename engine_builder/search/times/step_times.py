"""Milliseconds of each kind of conversion by its size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine_builder.search.times.layouts import Step

FIRST_GUESS_NS = 0.3  # of one element, for a kind that was never seen


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What was seen of each kind: elements and milliseconds, by growing size."""

    seen: Mapping[Step, tuple[tuple[int, float], ...]]

    def milliseconds(self, step: Step, elements: int) -> float:
        """Return what one conversion takes: the time for an element is interpolated along the logarithm of the size.

        Beyond the largest size that was seen, each element more takes the first guess: what a small conversion takes is mostly its start.

        Args:
            step: Its kind.
            elements: Of the tensor.
        """
        if elements <= 0:
            return 0.0
        points = self.seen.get(step)
        if not points:
            return elements * FIRST_GUESS_NS * 1e-6
        largest, spent_there = points[-1]
        if elements > largest:
            return spent_there + (elements - largest) * min(FIRST_GUESS_NS * 1e-6, spent_there / largest)
        sizes = [math.log(size) for size, _ in points]
        return float(np.interp(math.log(elements), sizes, [spent / size for size, spent in points])) * elements
