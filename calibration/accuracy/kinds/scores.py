r"""Independent scores in 0..1: of a sigmoid for a sample, for each of several labels, or for each anchor or pixel.

Evidence: a Sigmoid, or values in 0..1 whose rows do not sum to 1. What the user takes from them are decisions and how sure they are:

1. one value a sample: 1 - |change|, and 0 where the decision at one half is another;
2. several: the Dice overlap of what is found at one half (2 both / (one + other)), 1 less the change of the sample's best score, 1 less the
   largest change where there are few, and the squared error in units of the spread over the data, 1 - e^2 / 2, as a cosine has it. A spread
   below LEAST_SPREAD is taken for that much: changes of nothing but noise floor decide nothing.

Probes take the squared error in the same units.
"""

from __future__ import annotations

import numpy as np

from calibration.accuracy.kinds.evidence import Evidence
from calibration.accuracy.kinds.part import Array, Booleans, Doubles, Part, spread_of
from calibration.accuracy.measures.sample_blocks import by_sample
from calibration.accuracy.measures.values import closeness
from calibration.accuracy.metrics import OutputKind

LEAST_SPREAD = 0.01
FEW_SCORES = 64
DECIDED = 0.5


def score_parts(evidence: Evidence, places: tuple[int, ...] = (), axis: int | None = None) -> tuple[Part, ...]:
    """Return the part of an output that holds scores: all of it, or some places of an axis. Their scale, 0..1, is one."""
    part = Part(OutputKind.SCORES, axis, places)
    return (Part(OutputKind.SCORES, axis, places, (_spread(part, evidence.values),)),)


def score_scores(part: Part, reference: Array, output: Array, counted: Booleans | None) -> Doubles:
    """Return how well the scores of each sample are kept, by the rules above."""
    if part.of(reference[:1]).size == len(reference[:1]):
        return closeness(part.of(reference), part.of(output))
    spread = _spread(part, reference)

    def of_samples(some_reference: Array, some_output: Array) -> Doubles:
        r, x = _rows(part, some_reference), _rows(part, some_output)
        is_broken = ~np.isfinite(x).all(axis=1)
        x = np.where(np.isfinite(x), x, 0.0)
        one, other = r >= DECIDED, x >= DECIDED
        found = one.sum(axis=1) + other.sum(axis=1)
        dice = np.divide(2.0 * (one & other).sum(axis=1), found, out=np.ones(len(r)), where=found > 0)
        change = np.abs(x - r)
        best = np.take_along_axis(change, r.argmax(axis=1)[:, None], axis=1)[:, 0]
        kept = np.minimum.reduce([dice, 1.0 - best, 1.0 - (change**2).mean(axis=1) / spread**2 / 2])
        if r.shape[1] <= FEW_SCORES:
            kept = np.minimum(kept, 1.0 - change.max(axis=1))
        return np.asarray(np.where(is_broken, 0.0, np.clip(kept, 0.0, 1.0)), dtype=np.float64)

    return by_sample(of_samples, reference, output)


def _spread(part: Part, values: Array) -> float:
    """Return the spread of all scores together, at least LEAST_SPREAD."""
    return max(float(spread_of(values, lambda some: _rows(part, some)[:, :, None])[0]), LEAST_SPREAD)


def _rows(part: Part, values: Array) -> Doubles:
    """Return the part's own values, (samples, all the rest)."""
    return np.asarray(part.of(values), dtype=np.float64).reshape(len(values), -1)
