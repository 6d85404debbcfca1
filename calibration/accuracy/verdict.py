"""Whether an engine keeps its accuracy budget, and how sure that is.

An engine meets a relative budget r when metric(engine) >= r * metric(baseline), and an absolute one when the mean over the samples is
inside it. Either way there is a margin theta that must not be negative, drop = budget - theta, and three answers:

1. ``met``: the interval of the drop lies inside the budget. For 0/1 scores the interval is the wider of the score bound and an exact
   one (``intervals.py``), so that a wrong ``met`` at 95% happens at most 5% of the time. For real-valued scores it is the BCa
   bootstrap's, from 1000 samples on, with one more sample as bad as the worst one seen: where one sample in a hundred carries the whole
   error, a wrong ``met`` falls from 9% to 5%. With fewer samples no interval of a mean can be trusted, and the answer is never ``met``.
2. ``met_on_sample``: the drop on these samples lies inside the budget, but that of all data may not.
3. ``not_met``: it does not even on these samples.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.intervals import (
    PairedTable,
    bca_bounds,
    chance_below_zero,
    chance_over_budget,
    drop_upper_bound,
    is_drop_below,
    margin,
    margin_bounds,
    proportion_lower_bound,
    score_statistic,
    t_bounds,
)
from calibration.accuracy.metrics import Metric
from calibration.process.lazy_import import deferred

special = deferred("scipy.special")

MIN_BOOTSTRAP_SAMPLES = 1000
DEFAULT_CONFIDENCE = 0.95


class Answer(enum.StrEnum):
    """What the verdict says."""

    MET = "met"
    MET_ON_SAMPLE = "met_on_sample"
    NOT_MET = "not_met"


class Selection(enum.StrEnum):
    """Whether the samples were kept apart from the search or also used by it."""

    HELD_OUT = "held_out"
    SHARED = "shared"


class IntervalMethod(enum.StrEnum):
    """How the interval of the drop was found."""

    SCORE_AND_EXACT = "score_and_exact"
    BCA = "bca"
    STUDENT_T = "student_t"
    SAME_ENGINE = "same_engine"  # nothing to estimate: the engine is the reference itself


@dataclass(frozen=True, slots=True)
class Budget:
    """How much accuracy may be lost: exactly one of the three is given."""

    min_relative: float | None = None  # share of the baseline's score to keep, 0-1
    max_nmse: float | None = None  # largest mean NMSE
    min_psnr: float | None = None  # least mean PSNR, decibels

    def __post_init__(self) -> None:
        """Refuse anything but one budget."""
        if sum(value is not None for value in (self.min_relative, self.max_nmse, self.min_psnr)) != 1:
            raise ValueError(f"expected exactly one of min_relative, max_nmse and min_psnr, found {self}")
        if self.min_relative is not None and not 0 <= self.min_relative <= 1:
            raise ValueError(f"min_relative must be within 0..1, found {self.min_relative}")

    def margins(self, baseline: NDArray[np.float64], engine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each sample adds to theta, (samples,): the budget is met where the mean is at least 0."""
        if self.min_relative is not None:
            return engine - self.min_relative * baseline
        if self.max_nmse is not None:
            return self.max_nmse - engine
        assert self.min_psnr is not None  # __post_init__ left no other case
        return engine - self.min_psnr

    def largest_drop(self, baseline: float) -> float:
        """Return the drop from the mean score ``baseline`` that is just allowed."""
        if self.min_relative is not None:
            return (1 - self.min_relative) * baseline
        if self.max_nmse is not None:
            return self.max_nmse - baseline
        assert self.min_psnr is not None  # __post_init__ left no other case
        return baseline - self.min_psnr


@dataclass(frozen=True, slots=True)
class AccuracyVerdict:
    """The answer and what it rests on. A drop is positive when the engine is worse, in the metric's own units."""

    answer: Answer
    metric: Metric
    baseline: float  # mean score
    engine: float  # mean score
    drop: float  # baseline - engine; engine - baseline for nmse, where less is better
    interval: tuple[float, float]  # of the drop
    confidence: float  # with which each end of the interval holds by itself, 0-1
    method: IntervalMethod
    n: int  # samples
    flips: int  # samples whose score changed
    budget: float  # largest drop allowed
    probability_over_budget: float  # that the true drop is larger than the budget, 0-1
    samples_needed: int | None  # at which the same rates would give ``met`` (n if they do now); None if none would
    selection: Selection


def judge(
    metric: Metric,
    baseline: NDArray[np.float64],
    engine: NDArray[np.float64],
    budget: Budget,
    *,
    confidence: float = DEFAULT_CONFIDENCE,
    selection: Selection,
    rng: np.random.Generator,
) -> AccuracyVerdict:
    """Return whether ``engine`` keeps the budget.

    Args:
        metric: What the scores are.
        baseline: (samples,) the float model's scores: ``score(metric, reference, reference, labels)``.
        engine: (samples,) the engine's scores on the same samples.
        budget: How much may be lost.
        confidence: Of each end of the interval, 0.5-1: a wrong ``met`` happens at most 1 - confidence of the time.
        selection: Whether the samples were also used by the search.
        rng: For the bootstrap and the posterior.
    """
    baseline, engine = _checked(baseline, engine)
    if budget.min_relative is not None and _is_paired(metric, baseline, engine):
        return _judge_paired(metric, _table(baseline, engine), budget.min_relative, confidence, selection, rng)
    margins = budget.margins(baseline, engine)
    n, theta = len(margins), float(margins.mean())
    is_bootstrapped = n >= MIN_BOOTSTRAP_SAMPLES
    if is_bootstrapped:
        low, high = bca_bounds(np.append(margins, margins.min()), confidence, rng)
    else:
        low, high = t_bounds(margins, confidence)
    largest = budget.largest_drop(float(baseline.mean()))
    return AccuracyVerdict(
        answer=_answer(theta, is_decided=is_bootstrapped and low >= -_ROUNDING),
        metric=metric,
        baseline=float(baseline.mean()),
        engine=float(engine.mean()),
        drop=_difference(largest, theta),
        interval=(_difference(largest, high), _difference(largest, low)),
        confidence=confidence,
        method=IntervalMethod.BCA if is_bootstrapped else IntervalMethod.STUDENT_T,
        n=n,
        flips=int(np.count_nonzero(baseline != engine)),
        budget=largest,
        probability_over_budget=chance_below_zero(margins),
        samples_needed=_samples_for_mean(margins, confidence, is_decided=is_bootstrapped and low >= -_ROUNDING),
        selection=selection,
    )


def meets_with_confidence(table: PairedTable, ratio: float, confidence: float, *, can_gain: bool) -> bool:
    """Return whether both the score bound and the exact bound on the margin lie inside the budget.

    Args:
        table: The paired 0/1 scores.
        ratio: The share of the baseline's accuracy to keep, 0-1.
        confidence: Of each bound, 0.5-1: true of an engine over the budget at most 1 - confidence of the time.
        can_gain: Whether the engine can be right where the baseline is wrong; it cannot where the baseline is right by definition.
    """
    if margin(table, ratio) <= 0 or score_statistic(table, ratio, 0.0) < NormalDist().inv_cdf(confidence):
        return False  # the cheap one is asked first: it does not even import scipy
    allowed, left = _exact_budget(table, ratio, confidence, can_gain)
    return is_drop_below(allowed, table.n, table.lost, table.gained, left, can_gain=can_gain)


def can_decide(
    n: int, flip_rate: float, budget: Budget, confidence: float, *, metric: Metric = Metric.TOP1, is_binary: bool = True
) -> bool:
    """Return whether ``n`` samples could show ``met`` for an engine as good as the baseline that changes some scores.

    Args:
        n: Samples.
        flip_rate: Share of the samples whose score changes, 0-1: half for the better where the metric allows that.
        budget: How much may be lost.
        confidence: Of the verdict, 0.5-1.
        metric: What the scores are.
        is_binary: Whether all scores seen so far are 0 or 1.
    """
    if budget.min_relative is None or metric.is_real_valued or not is_binary:
        return n >= MIN_BOOTSTRAP_SAMPLES
    if n < 1:
        return False
    can_gain = not metric.is_perfect_by_definition
    flips = min(n, math.ceil(flip_rate * n - _ROUNDING))
    gained = flips // 2 if can_gain else 0
    table = PairedTable(both=n - flips, lost=flips - gained, gained=gained, wrong=0)
    return meets_with_confidence(table, budget.min_relative, confidence, can_gain=can_gain)


def smallest_n(budget: Budget, confidence: float, *, metric: Metric = Metric.AGREEMENT) -> int | None:
    """Return how many samples show ``met`` when not one score changes and the baseline is always right: the least that can do.

    Args:
        budget: How much may be lost.
        confidence: Of the verdict, 0.5-1.
        metric: What the scores are.

    Returns:
        A number of samples, or None if no number could (a budget of nothing).
    """
    if budget.min_relative is None or metric.is_real_valued:
        return MIN_BOOTSTRAP_SAMPLES
    ratio, can_gain = budget.min_relative, not metric.is_perfect_by_definition

    def is_enough(n: int) -> bool:
        return meets_with_confidence(PairedTable(both=n, lost=0, gained=0, wrong=0), ratio, confidence, can_gain=can_gain)

    return _least(is_enough, 1, precision=0.0)


def _judge_paired(
    metric: Metric, table: PairedTable, ratio: float, confidence: float, selection: Selection, rng: np.random.Generator
) -> AccuracyVerdict:
    can_gain = not metric.is_perfect_by_definition
    theta, largest = margin(table, ratio), (1 - ratio) * table.baseline
    low, high = margin_bounds(table, ratio, confidence)
    allowed, left = _exact_budget(table, ratio, confidence, can_gain)
    low = min(low, allowed - drop_upper_bound(table.n, table.lost, table.gained, left, can_gain=can_gain))
    answer = _answer(theta, is_decided=low >= 0)
    least_drop = -1.0 if can_gain else 0.0
    return AccuracyVerdict(
        answer=answer,
        metric=metric,
        baseline=table.baseline,
        engine=table.engine,
        drop=(table.lost - table.gained) / table.n,
        interval=(max(largest - high, least_drop), min(largest - low, 1.0)),
        confidence=confidence,
        method=IntervalMethod.SCORE_AND_EXACT,
        n=table.n,
        flips=table.lost + table.gained,
        budget=largest,
        probability_over_budget=chance_over_budget(table, ratio, rng, can_gain=can_gain),
        samples_needed=table.n if answer is Answer.MET else _samples_for_table(table, ratio, confidence, can_gain),
        selection=selection,
    )


def _exact_budget(table: PairedTable, ratio: float, confidence: float, can_gain: bool) -> tuple[float, float]:
    """Return the least drop that may still be allowed, (1 - r) P(baseline right), and the confidence left for the bound on the drop."""
    if not can_gain:
        return 1 - ratio, confidence
    alpha = 1 - confidence
    baseline = proportion_lower_bound(table.both + table.lost, table.n, 1 - _BASELINE_LEVEL * alpha)
    return (1 - ratio) * baseline, 1 - (1 - _BASELINE_LEVEL) * alpha


def _samples_for_table(table: PairedTable, ratio: float, confidence: float, can_gain: bool) -> int | None:
    if margin(table, ratio) <= _ROUNDING:
        return None

    def is_enough(n: int) -> bool:
        lost, gained = math.ceil(table.lost * n / table.n - _ROUNDING), math.floor(table.gained * n / table.n + _ROUNDING)
        wrong = min(n - lost - gained, math.floor(table.wrong * n / table.n + _ROUNDING))
        return meets_with_confidence(PairedTable(n - lost - gained - wrong, lost, gained, wrong), ratio, confidence, can_gain=can_gain)

    return _least(is_enough, table.n + 1, precision=_SAMPLES_PRECISION)


def _samples_for_mean(margins: NDArray[np.float64], confidence: float, *, is_decided: bool) -> int | None:
    theta = float(margins.mean())
    if is_decided:
        return len(margins)
    if theta <= _ROUNDING or len(margins) == 1:
        return None
    needed = math.ceil((float(special.ndtri(confidence)) * float(margins.std(ddof=1)) / theta) ** 2)
    return max(needed, MIN_BOOTSTRAP_SAMPLES, len(margins) + 1 if len(margins) >= MIN_BOOTSTRAP_SAMPLES else 0)


def _least(is_enough: Callable[[int], bool], start: int, *, precision: float) -> int | None:
    """Return the least n >= start that is enough, to a relative precision; None beyond a billion."""
    low, high = start - 1, start
    while not is_enough(high):
        low, high = high, high * 2
        if high > _MOST_SAMPLES:
            return None
    while high - low > max(1, int(precision * high)):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _answer(theta: float, *, is_decided: bool) -> Answer:
    if theta < -_ROUNDING:
        return Answer.NOT_MET
    return Answer.MET if is_decided else Answer.MET_ON_SAMPLE


def _is_paired(metric: Metric, baseline: NDArray[np.float64], engine: NDArray[np.float64]) -> bool:
    """Return whether the scores are 0 or 1; agreement is not where several predictions make a sample, a user's own metric may be."""
    if metric.is_real_valued:
        return False
    return bool(np.isin(baseline, (0.0, 1.0)).all() and np.isin(engine, (0.0, 1.0)).all())


def _table(baseline: NDArray[np.float64], engine: NDArray[np.float64]) -> PairedTable:
    was, is_now = baseline == 1.0, engine == 1.0
    both, lost, gained = (int(np.count_nonzero(cell)) for cell in (was & is_now, was & ~is_now, ~was & is_now))
    return PairedTable(both, lost, gained, len(baseline) - both - lost - gained)


def _difference(budget: float, margin: float) -> float:
    """Return the drop that leaves the margin of the budget: exactly zero where only the rounding of their sums parts the two."""
    return 0.0 if abs(budget - margin) <= _ROUNDING * abs(budget) else budget - margin


def _checked(baseline: NDArray[np.float64], engine: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    baseline, engine = np.asarray(baseline, dtype=np.float64), np.asarray(engine, dtype=np.float64)
    if baseline.ndim != 1 or baseline.shape != engine.shape or not baseline.size:
        raise ValueError(f"expected two arrays (samples,) of the same length, found shapes {baseline.shape} and {engine.shape}")
    if not (np.isfinite(baseline).all() and np.isfinite(engine).all()):
        raise ValueError("scores must be finite")
    return baseline, engine


_ROUNDING = 1e-12  # a drop that is exactly the budget is inside it, however its sums were rounded
_BASELINE_LEVEL = 0.02  # share of the error probability that is paid for not knowing the baseline's accuracy
_SAMPLES_PRECISION = 0.01
_MOST_SAMPLES = 10**9
