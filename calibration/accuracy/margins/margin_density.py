r"""How many decisions lie how near to being the other one: the density of the float model's margins.

The margins' sizes |s| are sorted into *bins* of equally many samples, about n^(1/3) of them, in each of which the density is constant. What
an engine flips lies mostly in the first bin, [0, H], and at its lower end, where hardly any sample may lie. So it is cut at H/2, H/4, H/8
and H/16 into *cells*, whose shares are those of

1. *a constant density*, if the sizes in the bin do not speak against it;
2. *a Polya tree* (M. Lavine, Annals of Statistics 20, 1992, 1222-1235), if they do, since margins are crowded at 0, or rare there: of what
   lies below a cut, the share below the next one is beta distributed, with the prior Beta(2, 2);
3. *a line*, where margins lie on both sides of the decision, as with labels: the density is continuous at 0. What is lost there and what
   is gained nearly cancel, and with constant densities on either side they would not. Labels that come from the float model itself break
   that: then hardly any margin is just on the wrong side. Where the margins nearest to 0 contradict an equal chance of both sides, the
   density is a constant on either.

Between 1 and 2 decides the posterior probability of each, in closed form, with a prior of 0.8 for the first: the density of the two example
networks is constant, to 20%, up to the first quarter or half of all margins.

Margins on a grid (fewer than nine in ten are distinct) have no density: within a cell they stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.process.lazy_import import deferred

special = deferred("scipy.special")

Values = NDArray[np.float64]
CUTS = 4  # of the first bin
TREE_WEIGHT = 2.0  # both parameters of the beta distribution of each share
CONSTANT_PROBABILITY = 0.8  # of density 1, before the margins are seen


@dataclass(frozen=True, slots=True, eq=False)
class Pseudo:
    """What is drawn besides the weights of samples: weights of pseudo-samples, in units of the sum of all samples' weights."""

    sides: Values  # (2, draws): half a sample on each side of the decision
    cuts: Values  # (2, cuts, draws): TREE_WEIGHT samples below and above each cut
    constant: Values  # (draws,): 1 where the density is constant, 0 where it is a tree; their shares in a mean

    @classmethod
    def drawn(cls, density: MarginDensity, totals: Values, rng: np.random.Generator) -> Pseudo:
        """Return draws, one for each of the sums of weights ``totals``, (draws,), of samples whose weights have mean 1."""
        shape = (len(totals),)
        return cls(
            rng.standard_gamma(_SIDE_WEIGHT, (2, *shape)) / totals,
            rng.standard_gamma(TREE_WEIGHT, (2, CUTS, *shape)) / totals,
            (rng.random(shape) < density.constant_probability).astype(np.float64),
        )

    @classmethod
    def expected(cls, density: MarginDensity) -> Pseudo:
        """Return what is drawn on average, as a single draw."""
        n = len(density.bins)
        return cls(np.full((2, 1), _SIDE_WEIGHT / n), np.full((2, CUTS, 1), TREE_WEIGHT / n), np.array([density.constant_probability]))


class MarginDensity:
    """Bins and cells of the float model's margins; does not change."""

    def __init__(self, reference: Values, *, can_gain: bool) -> None:
        """Sort the samples into bins and cells.

        Args:
            reference: (samples,), the float model's margins, none of them 0.
            can_gain: Whether margins may be negative.
        """
        size = np.abs(reference)
        ordered = np.sort(size)
        count = max(1, round(len(size) ** (1 / 3)))
        starts = [round(len(size) * index / count) for index in range(1, count)]
        inner = np.unique([(ordered[start - 1] + ordered[start]) / 2 for start in starts])
        inner = inner[(inner > ordered[0]) & (inner < ordered[-1])]  # ties may leave fewer bins
        first = inner[0] if len(inner) else ordered[-1]
        self.edges = np.array([0.0, *(first * 0.5**cut for cut in range(CUTS, 0, -1)), *inner, ordered[-1]])  # (cells + 1,)
        self.cell_bins = np.maximum(np.arange(len(self.edges) - 1) - CUTS, 0)  # (cells,)
        cells = np.clip(np.searchsorted(self.edges, size, side="left") - 1, 0, len(self.edges) - 2)
        right = reference > 0
        bins = self.cell_bins[cells]
        self.bins = np.where(right, bins, -1 - bins)  # (samples,): ..., -2, -1 wrong | 0, 1, ... right
        groups = np.where(right, cells, len(self.cell_bins) + cells)
        self._order = None if _are_together(groups) else np.argsort(groups, kind="stable")
        self._starts, self._groups = _runs(groups if self._order is None else groups[self._order])
        self._grid = [np.sort(size[cells == cell]) for cell in range(len(self.cell_bins))] if _is_grid(ordered) else None
        self._can_gain = can_gain
        self._is_continuous = _is_continuous(reference)
        self.constant_probability = 1.0 if can_gain or self._grid is not None else _constant_probability(cells)

    def reach(self, towards: Values) -> Values:
        """Return the share of each cell that a change flips, (samples, cells).

        Args:
            towards: (samples,), how far each change goes towards the decision and beyond; negative where it goes away.
        """
        widths = np.maximum(np.diff(self.edges), _NARROWEST)
        shares = np.clip((towards[:, None] - self.edges[:-1]) / widths, 0.0, 1.0)
        for cell, sizes in enumerate(self._grid or ()):
            if len(sizes):
                shares[:, cell] = np.searchsorted(sizes, towards, side="left") / len(sizes)
        return np.asarray(shares, dtype=np.float64)

    def kernel(self, side: int) -> Values:
        """Return how much each sample's change says of each cell: 2^-k from k bins away, (samples, cells).

        Args:
            side: 0 for decisions that were right, 1 for wrong ones.
        """
        own = -1 - self.cell_bins if side else self.cell_bins
        return _kernel(self.bins, own)

    def sums(self, weights: Values) -> Values:
        """Return the sum of the weights in each cell, of right and of wrong decisions, (2, draws, cells).

        Args:
            weights: (draws, samples). Of samples that are sorted by their margins it takes least time.
        """
        ordered = weights if self._order is None else weights[:, self._order]
        found = np.zeros((len(weights), 2 * len(self.cell_bins)))
        found[:, self._groups] = np.add.reduceat(ordered, self._starts, axis=1)
        return np.stack([found[:, : len(self.cell_bins)], found[:, len(self.cell_bins) :]])

    def seen(self, sums: Values) -> Values:
        """Return the sum of the kernel over the samples, by their weights, (2, draws, cells).

        Args:
            sums: (2, draws, cells), of the weights in each cell.
        """
        right, wrong = self.cell_bins, -1 - self.cell_bins
        return np.stack([sums[0] @ _kernel(right, own) + sums[1] @ _kernel(wrong, own) for own in (right, wrong)])

    def masses(self, sums: Values, pseudo: Pseudo) -> Values:
        """Return the share of all decisions in each cell, right and wrong ones, (2, draws, cells).

        Args:
            sums: (2, draws, cells), of the weights in each cell, which are 1 in all in each draw.
            pseudo: As many draws.
        """
        right, wrong = sums[0].copy(), sums[1].copy()
        near = slice(0, CUTS + 1)
        if self._grid is None and self._can_gain:
            beside = right[:, near].sum(axis=1) + pseudo.sides[0], wrong[:, near].sum(axis=1) + pseudo.sides[1]
            at_zero = np.minimum((beside[0] + beside[1]) / 2, 2 * np.minimum(*beside))  # densities stay positive to the bins' ends
            for masses, mass in ((right, beside[0]), (wrong, beside[1])):
                slope = at_zero / mass if self._is_continuous else np.ones_like(mass)
                masses[:, near] = masses[:, near].sum(axis=1)[:, None] * _line(slope)
        elif self._grid is None:
            right[:, near] = _one_sided(right[:, near], pseudo)
        return np.stack([right, wrong])


def _kernel(bins: NDArray[np.int64], own: NDArray[np.int64]) -> Values:
    """Return 2^-k for a change in one of ``bins`` and a cell whose bin, one of ``own``, is k bins away, (bins, own)."""
    return np.asarray(0.5 ** np.abs(bins[:, None] - own[None, :]), dtype=np.float64)


def _runs(groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where runs of equal numbers start, and these numbers."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return starts, groups[starts]


def _are_together(groups: NDArray[np.int64]) -> bool:
    found = _runs(groups)[1]
    return len(np.unique(found)) == len(found)


def _one_sided(cells: Values, pseudo: Pseudo) -> Values:
    """Return the masses of the first bin's cells, (draws, CUTS + 1), given what samples are in them."""
    below = np.cumsum(cells, axis=1)
    total = below[:, -1].copy()
    tree, left = np.empty_like(cells), total.copy()
    for cut in range(CUTS, 0, -1):  # from H/2 down
        low, high = pseudo.cuts[0, cut - 1], pseudo.cuts[1, cut - 1]
        share = (below[:, cut - 1] + low) / (below[:, cut] + low + high)
        tree[:, cut] = left * (1.0 - share)
        left = left * share
    tree[:, 0] = left
    constant = total[:, None] * _CONSTANT
    return np.asarray(pseudo.constant[:, None] * constant + (1.0 - pseudo.constant[:, None]) * tree)


def _line(slope: Values) -> Values:
    """Return the shares of the first bin's cells, (draws, CUTS + 1), under densities that start at ``slope``, 0-2, of their mean."""
    ends = np.cumsum(_CONSTANT)
    below = slope[:, None] * ends + (1.0 - slope[:, None]) * ends**2
    return np.diff(below, axis=1, prepend=0.0)


def _constant_probability(cells: NDArray[np.int64]) -> float:
    """Return the posterior probability that the density is constant in the first bin, from the cell of each sample."""
    counts = np.bincount(cells, minlength=CUTS + 1)[: CUTS + 1]
    below = np.cumsum(counts)
    evidence = 0.0  # log of the tree's likelihood by the constant density's
    for cut in range(1, CUTS + 1):
        low, high = int(below[cut - 1]), int(counts[cut])
        evidence += float(special.betaln(TREE_WEIGHT + low, TREE_WEIGHT + high) - special.betaln(TREE_WEIGHT, TREE_WEIGHT))
        evidence += (low + high) * float(np.log(2.0))
    odds = CONSTANT_PROBABILITY / (1.0 - CONSTANT_PROBABILITY)
    return float(special.expit(np.log(odds) - evidence))


def _is_continuous(reference: Values) -> bool:
    """Return whether as many of the margins nearest to 0 may be on either side: their density is then the same on both."""
    nearest = np.argsort(np.abs(reference), kind="stable")[: int(np.clip(round(_NEAR_ZERO * len(reference)), *_NEAREST))]
    fewer = min(int(np.count_nonzero(reference[nearest] > 0)), int(np.count_nonzero(reference[nearest] < 0)))
    return bool(special.bdtr(fewer, len(nearest), _LEAST_SIDE) > _CONTRADICTED)


def _is_grid(ordered: Values) -> bool:
    """Return whether margins lie on a grid, far ones apart: scores that saturate may be equal there."""
    nearer = ordered[: max(2, len(ordered) // 2)]
    return len(np.unique(nearer)) < _DISTINCT * len(nearer)


_CONSTANT = np.array([0.5**CUTS, *(0.5**cut for cut in range(CUTS, 0, -1))])  # widths of the first bin's cells, by its own
_SIDE_WEIGHT = 0.5  # samples
_DISTINCT = 0.9
_NEAR_ZERO, _NEAREST = 0.02, (12, 200)  # share of the margins that are looked at, and how many at least and at most
_LEAST_SIDE, _CONTRADICTED = 0.35, 0.05  # share of the smaller side where the density is continuous, and the level of the test
_NARROWEST = 1e-290  # of a bin of ties: any change crosses it
