r"""The share of decisions that an engine changes, from how clearly each was decided and how far the engine moves margins.

With s the float model's margin of a sample and s + d the engine's, a decision that was right is lost where s > 0 > s + d. A count of such
samples is a coin thrown once a sample; the margins and their changes are measurements. If margins near 0 have the density f,

    P(lost) = integral_0^inf f(s) P(-d > s | s) ds,       and in first order   P(lost) = f(0) E[max(-d, 0)],

where f(0) rests on every sample of a window much wider than the changes, and E[max(-d, 0)] on the changes of all of them: that is why
n samples say what two to ten times as many coins say. What is assumed, and what becomes of it where it fails:

1. *Density*: see ``margin_density``.
2. *Changes.* Within a bin the change does not depend on the margin (which is less than to be normal, or to have a mean of 0). A bin takes
   the changes of all samples, those of samples k bins away with the weight 2^-k: the spread of changes may follow the margin. A change
   that would flip every sample counts in all bins: heavy tails that were seen are part of the estimate.
3. *Fit.* Where 1 or 2 fail, the number of flips seen, X, does not fit the number expected, E. With a gamma prior of mean 1 and variance
   1/c on the ratio of the two, the ratio is expected to be (c + X) / (c + E), so that the estimate becomes a plain count where there are
   many flips, and trusts the margins where there are few. On the example networks the ratio is off by 10 to 25%; c = 10 allows for 32%.

The error comes from the Bayesian bootstrap (D. B. Rubin, Annals of Statistics 9, 1981, 130-134): the samples get weights from a flat
Dirichlet distribution, over and over. The ratio of the fit is drawn from its gamma posterior (conjugate to Poisson counts).
What no sample shows cannot be seen: ``change_posterior`` adds that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.margins.decision_margins import DecisionMargins
from calibration.accuracy.margins.margin_density import MarginDensity, Pseudo

Values = NDArray[np.float64]
FIT_WEIGHT = 10.0  # c of assumption 3


@dataclass(frozen=True, slots=True)
class Changes:
    """Shares of all decisions, 0-1."""

    lost: float  # right before, wrong now
    gained: float  # wrong before, right now

    @property
    def drop(self) -> float:
        """By how much the share of right decisions falls."""
        return self.lost - self.gained

    @property
    def flipped(self) -> float:
        """The share of decisions that change between right and wrong."""
        return self.lost + self.gained


def expected_changes(margins: DecisionMargins) -> Changes:
    """Return the expected shares of lost and gained decisions, from margins and counts together."""
    n, table = len(margins), margins.table
    density = MarginDensity(margins.reference, can_gain=margins.can_gain)
    weights = np.full((1, n), 1.0 / n)
    sums = density.sums(weights)
    shares = ChangeShares(density, margins).under(weights, density.seen(sums), density.masses(sums, Pseudo.expected(density)))[:, 0]
    lost, gained = shares * (FIT_WEIGHT + np.array([table.lost, table.gained])) / (FIT_WEIGHT + n * shares)
    return Changes(float(lost), float(gained))


class ChangeShares:
    """What the changes of one engine do to decisions of a density; does not change."""

    def __init__(self, density: MarginDensity, margins: DecisionMargins) -> None:
        """Find how far the change of each sample reaches."""
        with np.errstate(invalid="ignore"):
            change = margins.engine - margins.reference
        towards = (-change, change) if margins.can_gain else (-change,)
        self._flips = [_used_cells(density.kernel(side) * density.reach(move)) for side, move in enumerate(towards)]

    def under(self, weights: Values, seen: Values, masses: Values) -> Values:
        """Return the shares of lost and gained decisions, (2, draws).

        Args:
            weights: (draws, samples), of the samples, each row of sum 1.
            seen: (2, draws, cells), of the density under these weights.
            masses: (2, draws, cells), of the density under these weights.
        """
        shares = np.zeros((2, len(weights)))
        for side, (cells, flips) in enumerate(self._flips):
            shares[side] = np.einsum("dc,dc->d", masses[side][:, cells], (weights @ flips) / seen[side][:, cells])
        return shares


def _used_cells(flips: Values) -> tuple[NDArray[np.intp], Values]:
    """Return the cells that any change reaches, and what of them is flipped, (samples, those cells): mostly the few nearest to 0."""
    cells = np.flatnonzero(flips.any(axis=0))
    return cells, np.ascontiguousarray(flips[:, cells])
