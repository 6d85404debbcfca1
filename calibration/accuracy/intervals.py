r"""Confidence bounds on how much accuracy was lost, from scores of the same samples before and after.

**Paired 0/1 scores.** A sample falls into one of four cells: both right, lost (only the baseline right), gained (only the engine right)
or both wrong, with probabilities p_both, p_lost, p_gained, p_wrong. The margin of an engine that must keep a share r of the accuracy is

    theta = P(engine right) - r P(baseline right) = (1 - r) p_both + p_gained - r p_lost,   met <=> theta >= 0.

1. *Score bound.* theta = E[w] with w one of (1 - r, -r, 1, 0). The most likely cells with E[w] = t are p_i = x_i / (n + lambda (w_i - t));
   a cell without samples takes what is left when its own denominator reaches zero. Then z(t) = (theta_hat - t) / sqrt(Var_p(w) / n) is
   Rao's score statistic, and the bounds are where |z| is the normal quantile. For r = 1 this is Tango's interval (Statistics in Medicine
   17, 1998, 891-908). It is accurate on average but up to 7% wrong at 5% near a corner.
2. *Exact bound.* Buehler's upper bound on p_lost - p_gained for the order that Tango's bound gives to the tables: the largest difference
   under which a table at least as good is still as likely as 1 - confidence, whatever the rate of changes. Never wrong more often than
   it says, and, unlike two Clopper-Pearson bounds, as narrow as the score bound when many samples changed. The rate of gains is first
   bounded, at 2% of the error probability, which is paid for (Berger and Boos, JASA 89, 1994, 1012-1016).

**Real-valued scores.** The bias-corrected and accelerated bootstrap of a mean (Efron, JASA 82, 1987, 171-185), whose acceleration has the
closed form a = sum d^3 / (6 (sum d^2)^1.5); and Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.measures.values import WORST_LOSS
from calibration.process.lazy_import import deferred

special = deferred("scipy.special")


@dataclass(frozen=True, slots=True)
class PairedTable:
    """How many samples fell into each cell; every count is at least 0, and there is at least one sample."""

    both: int  # both right
    lost: int  # only the baseline right
    gained: int  # only the engine right
    wrong: int  # both wrong

    def __post_init__(self) -> None:
        """Refuse tables that no samples give."""
        if min(self.both, self.lost, self.gained, self.wrong) < 0 or self.n == 0:
            raise ValueError(f"cells must be at least 0 and not all 0, found {self}")

    @property
    def n(self) -> int:
        """Samples in all."""
        return self.both + self.lost + self.gained + self.wrong

    @property
    def baseline(self) -> float:
        """The baseline's accuracy, 0-1."""
        return (self.both + self.lost) / self.n

    @property
    def engine(self) -> float:
        """The engine's accuracy, 0-1."""
        return (self.both + self.gained) / self.n


def margin(table: PairedTable, ratio: float) -> float:
    """Return theta_hat = accuracy of the engine - ratio * accuracy of the baseline."""
    return ((1 - ratio) * table.both + table.gained - ratio * table.lost) / table.n


def margin_bounds(table: PairedTable, ratio: float, confidence: float) -> tuple[float, float]:
    """Return the score bounds (low, high) on the margin theta, each of which holds with ``confidence``.

    Args:
        table: The paired scores.
        ratio: The share r of the baseline's accuracy to keep, 0-1.
        confidence: Of each bound by itself, 0.5-1.
    """
    z = float(special.ndtri(confidence))
    center = margin(table, ratio)
    low = _root(lambda t: score_statistic(table, ratio, t) - z, -ratio, center)
    high = _root(lambda t: score_statistic(table, ratio, t) + z, center, 1.0)
    return low, high


def score_statistic(table: PairedTable, ratio: float, t: float) -> float:
    """Return z(t), the score statistic of the hypothesis theta = t: positive where the sample's margin is above ``t``."""
    distance = margin(table, ratio) - t
    if distance == 0:
        return 0.0
    offsets = (1 - ratio - t, -ratio - t, 1 - t, -t)
    cells = _likeliest_cells((table.both, table.lost, table.gained, table.wrong), offsets, table.n)
    variance = sum(cell * offset**2 for cell, offset in zip(cells, offsets, strict=True))
    return distance * math.sqrt(table.n / variance) if variance > 0 else math.copysign(math.inf, distance)


def drop_upper_bound(n: int, lost: int, gained: int, confidence: float, *, can_gain: bool = True) -> float:
    """Return the exact upper bound on p_lost - p_gained: wrong in at most 1 - confidence of all cases.

    Args:
        n: Samples, at least 1.
        lost: Samples that only the baseline gets right.
        gained: Samples that only the engine gets right.
        confidence: Of the bound, 0.5-1.
        can_gain: Whether a gain is possible at all; it is not where the baseline is right by definition, and then this is the
            Clopper-Pearson bound.

    Returns:
        A difference of rates, -1 to 1.
    """
    if lost == n:
        return 1.0
    if not can_gain:
        return float(special.betaincinv(lost + 1, n - lost, confidence))
    order = _order(n, lost, gained, confidence)
    low, high = (lost - gained) / n, order.tango
    step = max(high - low, 1 / n)
    while high < 1 and order.chance(high) > order.level:
        low, high = high, min(1.0, high + step)
    for _ in range(_BOUND_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if order.chance(middle) > order.level else (low, middle)
    return high


def is_drop_below(drop: float, n: int, lost: int, gained: int, confidence: float, *, can_gain: bool = True) -> bool:
    """Return whether ``drop_upper_bound`` of the other arguments is at most ``drop``, in one step instead of a search for it."""
    if lost == n or not can_gain:
        return drop_upper_bound(n, lost, gained, confidence, can_gain=can_gain) <= drop
    order = _order(n, lost, gained, confidence)
    return order.chance(drop) <= order.level


def proportion_lower_bound(successes: int, n: int, confidence: float) -> float:
    """Return the Clopper-Pearson lower bound on a proportion, 0-1."""
    return float(special.betaincinv(successes, n - successes + 1, 1 - confidence)) if successes else 0.0


def bca_bounds(values: NDArray[np.float64], confidence: float, rng: np.random.Generator, *, resamples: int = 4000) -> tuple[float, float]:
    """Return the BCa bootstrap bounds (low, high) on the mean, each of which holds with ``confidence``.

    Args:
        values: (samples,), one per sample; at least 2.
        confidence: Of each bound by itself, 0.5-1.
        rng: Draws the resamples.
        resamples: How many.
    """
    n = len(values)
    mean = float(values.mean())
    d = values - mean
    square = float(d @ d)
    if square <= (_TINY * max(1.0, abs(mean))) ** 2 * n:
        return mean, mean
    means = np.empty(resamples)
    rows = max(1, _RESAMPLED_AT_ONCE // n)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = d[rng.integers(0, n, size=(stop - start, n))].mean(axis=1)
    below = (np.count_nonzero(means < 0) + 0.5 * np.count_nonzero(means == 0) + 0.5) / (resamples + 1)
    bias = float(special.ndtri(below))
    acceleration = float((d**3).sum()) / (6 * square**1.5)
    levels = []
    for z in (float(special.ndtri(1 - confidence)), float(special.ndtri(confidence))):
        shifted = bias + z
        levels.append(float(special.ndtr(bias + shifted / max(1 - acceleration * shifted, _TINY))))
    low, high = np.quantile(means, levels)
    return mean + float(low), mean + float(high)


def t_bounds(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Return Student's bounds (low, high) on the mean of ``values`` (samples,), each of which holds with ``confidence``."""
    n = len(values)
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else WORST_LOSS  # one value bounds nothing
    reach = float(special.stdtrit(max(n - 1, 1), confidence)) * spread
    return mean - reach, mean + reach


def _likeliest_cells(counts: Sequence[int], offsets: Sequence[float], n: int) -> list[float]:
    """Return the cells p (4,) that maximise the likelihood of ``counts`` subject to sum p_i offsets_i = 0."""
    highest, lowest = max(offsets), min(offsets)
    if highest <= 0 or lowest >= 0:  # the hypothesis lies at the end of what is possible: all mass on the cells there
        at_end = [float(offset == 0) for offset in offsets]
        return [cell / sum(at_end) for cell in at_end]
    held = [(count, offset) for count, offset in zip(counts, offsets, strict=True) if count]

    def slope(multiplier: float) -> tuple[float, float]:
        value = steepness = 0.0
        for count, offset in held:
            share = offset / max(1 + multiplier * offset, _TINY)
            value += count * share
            steepness -= count * share * share
        return value, steepness

    # Every denominator 1 + multiplier * offset, those of empty cells too, is positive between these ends.
    multiplier = _newton_root(slope, -1 / highest, -1 / lowest)
    denominators = [max(1 + multiplier * offset, _TINY) for offset in offsets]
    cells = [count / n / denominator for count, denominator in zip(counts, denominators, strict=True)]
    empty = [index for index, count in enumerate(counts) if not count]
    if empty:  # at an end, what is left belongs to the cell without samples whose denominator vanished there
        cells[min(empty, key=denominators.__getitem__)] += max(0.0, 1 - sum(cells))
    return cells


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """The tables that are at least as good as the one observed, and how likely they are."""

    n: int
    tango: float  # Tango's upper bound on the drop of the table observed: as good are those whose bound is no higher
    level: float  # what is left of the error probability
    gain_rates: tuple[float, float]  # least and most that are believed
    gains: NDArray[np.float64]  # (gains,) counts
    most_lost: NDArray[np.float64]  # (gains,) the most losses with which a table is still as good

    def chance(self, drop: float) -> float:
        """Return the probability of these tables under a true ``drop``, at the rate of gains that makes it highest; falls with the drop."""
        least, most = max(self.gain_rates[0], -drop), min(self.gain_rates[1], (1 - drop) / 2)
        if least > most:
            return 0.0  # no such drop with a rate of gains that is believed
        rates = np.linspace(least, most, _GAIN_RATES)
        chances = _binomial_pmf(self.n, self.gains, rates[:, None])  # (rates, gains)
        shares = np.clip((drop + rates) / np.maximum(1 - rates, _TINY), 0.0, 1.0)  # of losses among what is not a gain
        rows, columns = np.nonzero(chances > _NEGLIGIBLE)
        most_lost = self.most_lost[columns]
        room = self.n - self.gains[columns] - most_lost
        # P(losses <= most_lost) of a binomial of n - gains, as an incomplete beta; 1 where there is nothing more to lose.
        as_good = np.where(room > 0, special.betaincc(most_lost + 1, np.maximum(room, 1.0), shares[rows]), 1.0)
        return float(np.bincount(rows, chances[rows, columns] * as_good, minlength=1).max())


def _order(n: int, lost: int, gained: int, confidence: float) -> _Order:
    z, alpha = float(special.ndtri(confidence)), 1 - confidence
    own = np.array([float(lost)]), np.array([float(gained)])
    tango = _root(lambda drop: z + float(_tango_statistic(n, *own, drop)[0]), (lost - gained) / n, 1.0)
    nuisance = _GAIN_LEVEL * alpha
    least = float(special.betaincinv(gained, n - gained + 1, nuisance / 2)) if gained else 0.0
    most = float(special.betaincinv(gained + 1, n - gained, 1 - nuisance / 2)) if gained < n else 1.0
    gains = _binomial_span(n, least, most)
    most_lost = _most_lost(n, gains, tango, z)
    return _Order(n, tango, alpha - nuisance, (least, most), gains[most_lost >= 0], most_lost[most_lost >= 0])


def _most_lost(n: int, gains: NDArray[np.float64], order_at: float, z: float) -> NDArray[np.float64]:
    """Return, for each number of gains, the most losses whose Tango bound is at most ``order_at``; -1 where there are none."""
    low, high = np.full(len(gains), -1.0), n - gains
    while np.any(high > low):
        middle = np.ceil((low + high) / 2)
        good = _tango_statistic(n, middle, gains, order_at) <= -z + _ORDER_SLACK
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1)
    return low


def _tango_statistic(n: int, lost: NDArray[np.float64], gained: NDArray[np.float64], drop: float) -> NDArray[np.float64]:
    """Return Tango's z of the hypothesis p_lost - p_gained = drop, in closed form; positive where the sample lost more."""
    # The likeliest p_gained is the positive root q of 2n q^2 + b q + c = 0.
    b = (2 * n - lost + gained) * drop - lost - gained
    c = -gained * drop * (1 - drop)
    q = (np.sqrt(np.maximum(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * np.maximum(2 * q + drop * (1 - drop), _TINY)
    return np.asarray((lost - gained - n * drop) / np.sqrt(variance), dtype=np.float64)


def _binomial_pmf(n: int, k: NDArray[np.float64], rates: NDArray[np.float64]) -> NDArray[np.float64]:
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.asarray(np.exp(ways + special.xlogy(k, rates) + special.xlog1py(n - k, -rates)), dtype=np.float64)


def _binomial_span(n: int, lowest: float, highest: float) -> NDArray[np.float64]:
    """Return the counts out of ``n`` that hold all but 1e-9 of the probability, for every rate between two."""
    reach = 7.0
    low = n * lowest - reach * math.sqrt(n * lowest) - reach
    high = n * highest + reach * math.sqrt(n * highest) + 2 * reach**2 / 3
    return np.arange(max(0, math.floor(low)), min(n, math.ceil(high)) + 1, dtype=np.float64)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function crosses zero, to the last bit; the end nearer to it if it does not."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _newton_root(falling: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
    """Return what ``_root`` does, of a function that tells its derivative too, in a few steps; it is halved where a step leads astray."""
    if falling(low)[0] <= 0:
        return low
    if falling(high)[0] >= 0:
        return high
    at = 0.0 if low < 0.0 < high else (low + high) / 2
    for _ in range(_HALVINGS):
        value, steepness = falling(at)
        low, high = (at, high) if value > 0 else (low, at)
        step = at - value / steepness if steepness < 0 else low
        nearer = step if low < step < high else (low + high) / 2
        if abs(nearer - at) <= _LAST_BITS * abs(nearer):
            return nearer
        at = nearer
    return at


_TINY = 1e-15
_NEGLIGIBLE = 1e-13  # probability of a count of gains below which it is left out
_BOUND_HALVINGS = 20  # of a step about as long as the bound is wide
_HALVINGS = 60  # of an interval no longer than 2: to 2^-59, or to the last bit of a small root before that
_LAST_BITS = 4e-16  # relative: steps that are no longer
_ORDER_SLACK = 1e-7  # tables that differ by rounding alone are equally good; wider only makes the bound more cautious
_GAIN_LEVEL = 0.02  # share of the error probability that is paid for bounding the rate of gains
_GAIN_RATES = 16  # rates of gains that are tried
_RESAMPLED_AT_ONCE = 2_000_000  # values, 16 MB


def at_least_as_counted(probability: float, highest: float, confidence: float) -> float:
    """Return the probability of being over the budget; no less than the confidence where the interval lies outside of it by itself.

    Margins say more than counts, if their model is right. Where they contradict what was counted, the counts are believed.

    Args:
        probability: By the margins, 0-1.
        highest: Upper end of the interval of the budget slack; negative: all of the interval is over the budget.
        confidence: Of that end, 0.5-1.
    """
    return max(probability, confidence) if highest < 0.0 else probability
