r"""How sure the share of changed decisions is: draws from its posterior, and the probability that a drop exceeds its budget.

Three sources of error are drawn together (see ``change_shares`` for the first two):

1. which samples there are: the Bayesian bootstrap;
2. whether flips follow from margins as assumed: the ratio of flips seen to flips expected, by its gamma posterior;
3. what no sample shows: a share w of samples that the engine changes whatever their margin (a kind of input whose activations overflow a
   range, say). Those seen are part of 1; for those unseen, w has the posterior Beta(a, n) of the prior Beta(a, 0), a = 0.1: after n
   samples without one there is a chance of about a (0.6 + ln(1 / (n x))) that w exceeds a small x < 1 / n; 18% for x = 1 / (10 n).

A probability is as good as these assumptions, in the mean over populations such as the benchmark's. No statement that is right for every
population can use margins: a population may hold 2% of samples of a kind that 24 samples do not show, and no margin tells (R. R. Bahadur
and L. J. Savage, Annals of Mathematical Statistics 27, 1956, 1115-1122). So a claim with a confidence needs the exact bound, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.margins.change_shares import FIT_WEIGHT, ChangeShares
from calibration.accuracy.margins.decision_margins import DecisionMargins
from calibration.accuracy.margins.margin_density import MarginDensity, Pseudo
from calibration.accuracy.margins.selection import shrunk_together

Values = NDArray[np.float64]
UNSEEN_WEIGHT = 0.1  # a of source 3
DRAWS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class ChangeDraws:
    """Draws from the joint posterior of some engines of one job, all shares of decisions, 0-1."""

    lost: Values  # (engines, draws)
    gained: Values  # (engines, draws)
    right: Values  # (draws,), the float model's accuracy

    @property
    def drop(self) -> Values:
        """By how much the share of right decisions falls, (engines, draws)."""
        return self.lost - self.gained

    def probabilities_over(self, ratio: float) -> tuple[float, ...]:
        """Return the probability of each engine that it keeps less than a ``ratio``, 0-1, of the float model's right decisions."""
        return tuple(float(share) for share in (self.drop > (1.0 - ratio) * self.right).mean(axis=1))

    def intervals(self, confidence: float) -> tuple[tuple[float, float], ...]:
        """Return the drop of each engine that is exceeded, and the one that is not exceeded, with probability ``confidence``, 0.5-1."""
        low, high = np.quantile(self.drop, (1.0 - confidence, confidence), axis=1)
        return tuple((float(one), float(other)) for one, other in zip(low, high, strict=True))


def change_draws(
    engines: Sequence[DecisionMargins], rng: np.random.Generator, *, are_chosen_from: bool = True, draws: int = DRAWS
) -> ChangeDraws:
    """Return the joint posterior of engines that were run on the same samples: what is due to the samples is shared.

    Args:
        engines: Margins of each engine, with the same margins of the float model.
        rng: Draws.
        are_chosen_from: Whether one of the engines is chosen by these samples: their shares are shrunk together (``selection``).
        draws: How many.

    Raises:
        ValueError: There is no engine, or their samples differ.
    """
    if not engines or any(
        one.can_gain != engines[0].can_gain or not np.array_equal(one.reference, engines[0].reference) for one in engines
    ):
        raise ValueError("expected at least one engine, and the same margins of the float model for each")
    order = np.argsort(engines[0].reference, kind="stable")  # cells are then runs of samples, whose weights are quick to add up
    engines = [one.of(order) for one in engines]
    n, reference = len(engines[0]), engines[0].reference
    density = MarginDensity(reference, can_gain=engines[0].can_gain)
    models = [ChangeShares(density, one) for one in engines]
    shares = np.empty((len(engines), 2, draws))
    accuracy = np.empty(draws)
    rows = max(1, _VALUES_AT_ONCE // n)
    for start in range(0, draws, rows):
        part = slice(start, min(start + rows, draws))
        weights = rng.standard_exponential((part.stop - part.start, n))
        totals = weights.sum(axis=1)
        weights /= totals[:, None]
        sums = density.sums(weights)
        accuracy[part] = sums[0].sum(axis=1)
        seen, masses = density.seen(sums), density.masses(sums, Pseudo.drawn(density, totals, rng))
        for index, model in enumerate(models):
            shares[index, :, part] = model.under(weights, seen, masses)
    if are_chosen_from:
        shares = np.stack([shrunk_together(shares[:, side], _AS_GOOD_AS_NONE / n) for side in range(2)], axis=1)
    flips = np.array([(one.table.lost, one.table.gained) for one in engines], dtype=np.float64)[:, :, None]
    fitted = shares * rng.standard_gamma(FIT_WEIGHT + flips, shares.shape) / (FIT_WEIGHT + n * shares)
    unseen = rng.beta(UNSEEN_WEIGHT, n, (len(engines), draws))
    return ChangeDraws(np.minimum(fitted[:, 0] + unseen * accuracy, 1.0), np.minimum(fitted[:, 1], 1.0), accuracy)


_AS_GOOD_AS_NONE = 0.01  # samples
_VALUES_AT_ONCE = 500_000  # weights, 4 MB: what a processor keeps near it
