r"""What a number of samples can tell by counting, said before anything is measured, and how likely an engine is inside, in words.

An engine ships by default if it is more likely inside its budget than not. Where a sample is one decision and not one of n changes, the
share of changes keeps the posterior Beta(1/2, n + 1/2) (Jeffreys; ``drop_posterior``). While its median is above the budget, counts cannot
show that an engine is likely inside, whatever they are: what is left are margins, which say how far each decision was from changing, and
outputs that equal the float model's bit for bit.
"""

from __future__ import annotations

from calibration.accuracy.budget import Budget
from calibration.accuracy.paired_claims import least_samples
from calibration.accuracy.verdict import MOST_LIKELY_OVER
from calibration.process.lazy_import import deferred

special = deferred("scipy.special")


def samples_that_tell(budget: Budget) -> int | None:
    """Return how many decisions, none of them changed, make an engine likely inside by their number; None where no number does."""
    allowed = _allowed(budget)
    if allowed is None:
        return 1  # an error is measured, not counted

    def is_enough(n: int) -> bool:
        return float(special.betaincc(_WEIGHT, n + _WEIGHT, allowed)) < MOST_LIKELY_OVER

    return least_samples(is_enough, 1) if allowed > 0.0 else None


def resolution_note(samples: int, budget: Budget, *, has_margins: bool) -> str | None:
    """Return what to tell a user whose budget is finer than the samples can tell, None where it is not.

    Args:
        samples: On which engines are judged, one decision each.
        budget: How much may be lost.
        has_margins: Whether it is seen how clearly each decision is made.
    """
    allowed = _allowed(budget)
    # The median is at most twice the mean (Markov), which is half of 1 / (n + 1). Special functions take 0.2 s to import.
    if allowed is None or allowed * (samples + 1) > 1.0:
        return None
    needed = samples_that_tell(budget)
    if needed is not None and needed <= samples:
        return None
    named = f"{allowed:.4g}" if budget.min_relative is None else f"{100 * allowed:.4g}%"
    lost = "any drop at all" if needed is None else f"a drop of {named}"
    could = "" if needed is None else f" ({needed:,} could, if no decision changed)"
    ships = "an engine ships only if it changes no output of any sample"
    if has_margins and needed is not None:
        ships = "an engine ships only if its outputs move so little, by how clearly each decision is made, that it is likely inside"
    return f"{samples:,} validation samples cannot tell {lost} from none by counting{could}: {ships}"


def inside_in_words(probability_over_budget: float) -> str:
    """Return the headline of a verdict: "inside the budget with probability 0.93"."""
    inside = 1.0 - probability_over_budget
    told = f"{inside:.2f}"
    if inside >= _SURELY:
        told = f"above {_SURELY:.2f}"
    elif inside < 1.0 - _SURELY:
        told = f"below {1.0 - _SURELY:.2f}"
    return f"inside the budget with probability {told}"


def _allowed(budget: Budget) -> float | None:
    """Return what share of decisions may change for the worse, about; None where that is not what the budget says."""
    return 1.0 - budget.min_relative if budget.min_relative is not None else budget.max_drop


_WEIGHT = 0.5
_SURELY = 0.99  # beyond it a probability is no better than what it assumes
