"""Which engine ships: what is asked of its accuracy and of its speed.

By default an engine ships if it is more likely inside the budget than not, and worth it. A confidence that the user asks for demands more:
the budget must be met by the exact bound on counts, which holds for every kind of data, and by the probability from margins, which knows of
samples that kept their class by a hair. Of engines that are both, the fastest ships.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from calibration.accuracy.intervals import PairedTable
from calibration.accuracy.margins.selection import corrected_confidence
from calibration.accuracy.verdict import meets_with_confidence
from engine_builder.timing import MIN_GAIN, SPREADS, RelativeLatency

MOST_LIKELY_OVER = 0.5  # probability of being over the budget with which an engine still ships, if no confidence is asked for
LEAST_GAIN = 0.03  # of the baseline's latency, beyond the spread of the timing: less is not worth another model


def is_likely_inside(probability_over_budget: float) -> bool:
    """Return whether an engine, over its budget with that probability, 0-1, is accurate enough where no confidence is asked for."""
    return probability_over_budget < MOST_LIKELY_OVER


def is_surely_inside(
    table: PairedTable, ratio: float, confidence: float, *, can_gain: bool, probability_over_budget: float, chosen_from: int = 1
) -> bool:
    """Return whether an engine keeps its budget with a confidence: a wrong yes is given in at most 1 - confidence of all jobs.

    Args:
        table: The paired 0/1 scores.
        ratio: The share of the float model's score to keep, 0-1.
        confidence: Asked for, 0.5-1.
        can_gain: Whether the engine can be right where the float model is wrong.
        probability_over_budget: Of the engine, 0-1, corrected for selection (``change_posterior``); 0 where margins say nothing.
        chosen_from: How many engines could have been chosen by the same samples; 1 for samples that the search did not see.
    """
    if probability_over_budget > 1.0 - confidence:
        return False
    return meets_with_confidence(table, ratio, corrected_confidence(confidence, chosen_from), can_gain=can_gain)


def surely_inside_in_order(
    tables: Sequence[PairedTable], ratio: float, confidence: float, *, can_gain: bool, probabilities_over_budget: Sequence[float]
) -> int:
    """Return how many engines, from the first on, keep their budget with a confidence; the judging ends with the first that does not.

    In an order that the samples had no part in, slowest first, say, or by losses on calibration data, each may be tested at the full
    level: a wrong yes needs the first engine of the order that is over the budget to pass by itself (fixed-sequence testing: W. Maurer,
    L. A. Hothorn and W. Lehmacher, Biometrie in der chemisch-pharmazeutischen Industrie 6, 1995, 3-18). That finds more than
    ``chosen_from`` does, unless a bad engine comes early.

    Args:
        tables: The paired 0/1 scores of each engine, in the order.
        ratio: The share of the float model's score to keep, 0-1.
        confidence: Asked for, 0.5-1.
        can_gain: Whether engines can be right where the float model is wrong.
        probabilities_over_budget: Of each engine, 0-1; 0 where margins say nothing.
    """
    judged = (
        is_surely_inside(table, ratio, confidence, can_gain=can_gain, probability_over_budget=probability)
        for table, probability in zip(tables, probabilities_over_budget, strict=True)
    )
    return sum(1 for _ in itertools.takewhile(bool, judged))


def is_worth_it(relative: RelativeLatency, *, are_outputs_equal: bool, least_gain: float = LEAST_GAIN) -> bool:
    """Return whether an engine's gain in latency is worth having it.

    The gain must be above three MADs, as for any that is told from none, and exceed one MAD by ``least_gain``. An engine whose outputs
    equal the baseline's on every sample costs nothing: there any gain that the timing can tell will do.

    Args:
        relative: Of the engine to the baseline.
        are_outputs_equal: Whether every output is the baseline's, bit for bit, on all samples.
        least_gain: Share of the baseline's latency, 0-1.
    """
    gain = 1.0 - relative.ratio
    if gain <= SPREADS * relative.mad:
        return False
    return gain > MIN_GAIN if are_outputs_equal else gain - relative.mad >= least_gain
