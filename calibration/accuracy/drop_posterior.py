r"""How likely engines are over their budget, given the samples that they were scored on.

With x the worsening of a sample's score (positive where the engine is worse) and a the worsening that the budget allows it, an engine is
inside its budget if the mean of a - x over all data is not negative. Its posterior is drawn, of all engines of a job together:

1. *Decisions with margins*: ``margins.change_posterior``, which reads how clearly each decision was made.
2. *Other scores*: the Bayesian bootstrap of the mean (D. B. Rubin, Annals of Statistics 9, 1981, 130-134), which gives the samples weights
   from a flat Dirichlet distribution. It believes in nothing that was not seen, so that few samples would look safer than many. Therefore
   one more sample is put beside them, as bad as the worst one seen, with the weight of a sample; for scores of 0 and 1 a lost one with half
   a weight (and, where engines can be right where the float model is wrong, a gained one): Jeffreys' prior. The weights are shared by all
   engines, since the samples are.

Engines among which one is chosen by these samples are shrunk together, losses and gains apart (``margins.selection``, rule 1).
An engine whose outputs are the float model's bit for bit on every sample changes nothing that could be estimated: its probability is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.budget import Claim
from calibration.accuracy.margins.change_posterior import DRAWS, ChangeDraws, change_draws
from calibration.accuracy.margins.decision_margins import DecisionMargins
from calibration.accuracy.margins.selection import shrunk_together

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DropEvidence:
    """What the samples say of one engine and its budget."""

    allowed: Values  # (samples,), by how much each score may be worse
    worse: Values  # (samples,), by how much it is
    is_paired: bool  # whether the scores are 0 or 1
    can_gain: bool  # whether the engine can be right where the float model is wrong
    claim: Claim | None  # about the share of right decisions, where the budget is one
    margins: DecisionMargins | None = None  # of the same samples, where scores are their signs
    are_outputs_equal: bool = False  # bit for bit, on every sample

    def __post_init__(self) -> None:
        """Refuse what are not the same samples."""
        sizes = {len(self.allowed), len(self.worse), *(() if self.margins is None else (len(self.margins),))}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"expected the same samples, at least one, found {sorted(sizes)} of them")


def slack_draws(
    engines: Sequence[DropEvidence],
    rng: np.random.Generator,
    *,
    are_chosen_from: bool = True,
    draws: int = DRAWS,
    changes: ChangeDraws | None = None,
) -> Values:
    """Return draws of how far inside its budget each engine is in the mean over all data, (engines, draws); negative is over it.

    Args:
        engines: At least one; all were scored on the same samples.
        rng: Draws.
        are_chosen_from: Whether one of the engines is chosen by these samples.
        draws: How many.
        changes: What ``changes_of`` returned for these engines, where several budgets are asked of them; None: it is drawn here.
    """
    changed = [one for one in engines if not one.are_outputs_equal]
    found = np.empty((len(engines), draws))
    if changed:
        slacks = _slacks(changed, rng, are_chosen_from=are_chosen_from, draws=draws, changes=changes)
        found[[not one.are_outputs_equal for one in engines]] = slacks
    for row, one in zip(found, engines, strict=True):
        if one.are_outputs_equal:
            row[:] = one.allowed.mean() - one.worse.mean()
    return found


def probabilities_over(slacks: Values) -> tuple[float, ...]:
    """Return the probability of each engine that it is over its budget, 0-1, from ``slack_draws``."""
    return tuple(float(share) for share in (slacks < -_ROUNDING).mean(axis=1))


def changes_of(
    engines: Sequence[DropEvidence], rng: np.random.Generator, *, are_chosen_from: bool, draws: int = DRAWS
) -> ChangeDraws | None:
    """Return what ``slack_draws`` draws of decisions whose margins are known, which is the same at every budget; None of others.

    Args:
        engines: As for ``slack_draws``.
        rng: Of the draws.
        are_chosen_from: As for ``slack_draws``.
        draws: How many.
    """
    changed = [one for one in engines if not one.are_outputs_equal]
    margins = [one.margins for one in changed if one.margins is not None]
    if not changed or changed[0].claim is None or len(margins) != len(changed):
        return None
    return change_draws(margins, rng, are_chosen_from=are_chosen_from, draws=draws)


def _slacks(
    engines: Sequence[DropEvidence], rng: np.random.Generator, *, are_chosen_from: bool, draws: int, changes: ChangeDraws | None
) -> Values:
    claim = engines[0].claim
    changes = changes or changes_of(engines, rng, are_chosen_from=are_chosen_from, draws=draws)
    if claim is not None and changes is not None:
        return np.asarray((1.0 - claim.ratio) * changes.right + claim.drop - changes.drop)
    n, is_paired = len(engines[0].allowed), all(one.is_paired for one in engines)
    can_gain = is_paired and engines[0].can_gain
    moves = np.stack([np.stack([np.maximum(one.worse, 0.0), np.maximum(-one.worse, 0.0)]) for one in engines])  # (engines, 2, samples)
    unseen = np.stack([np.ones(len(engines)) if is_paired else moves[:, 0].max(axis=1), np.full(len(engines), float(can_gain))], axis=1)
    weight = _PAIRED_WEIGHT if is_paired else 1.0
    shares, allowed = np.empty((len(engines), 2, draws)), np.empty(draws)
    rows = max(1, _VALUES_AT_ONCE // n)
    for start in range(0, draws, rows):
        part = slice(start, min(start + rows, draws))
        size = part.stop - part.start
        weights = rng.standard_exponential((size, n))
        others = rng.standard_gamma(weight, (2, size)) * np.array([[1.0], [float(can_gain)]])
        totals = weights.sum(axis=1) + others.sum(axis=0)
        allowed[part] = weights @ engines[0].allowed / weights.sum(axis=1)
        shares[:, :, part] = (moves @ weights.T + unseen[:, :, None] * others[None]) / totals
    if are_chosen_from and (scale := float(moves.max())) > 0.0:
        shares = scale * np.stack([shrunk_together(shares[:, side] / scale, _AS_GOOD_AS_NONE / n) for side in range(2)], axis=1)
    return np.asarray(allowed - shares[:, 0] + shares[:, 1])


_PAIRED_WEIGHT = 0.5  # samples
_AS_GOOD_AS_NONE = 0.01  # samples
_VALUES_AT_ONCE = 2_000_000  # weights, 16 MB
_ROUNDING = 1e-12
