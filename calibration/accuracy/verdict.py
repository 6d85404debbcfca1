"""Whether an engine keeps its accuracy budget, and how sure that is.

An engine meets a budget of scores when metric(engine) >= r * metric(baseline) - d (``budget.py``), and one of errors or decibels when the
mean over all data is inside it. Either way there is a slack theta that must not be negative, drop = budget - theta, and the samples say
how likely it is (``drop_posterior.py``). Three answers:

1. ``met``: with the verdict's confidence. The interval of the drop lies inside the budget, and the probability of being over it is low.
   For 0/1 scores the interval is the wider of the score bound and an exact one (``intervals.py``), so that a wrong ``met`` at 95%
   happens at most 5% of the time. For real-valued scores it is the BCa bootstrap's, from 1000 samples on, with one more sample as bad as
   the worst one seen: where one sample in a hundred carries the whole error, a wrong ``met`` falls from 9% to 5%. With fewer samples no
   interval of a mean can be trusted, and the answer is never ``met``. Where the engine was chosen among K by the same samples, the level
   is shared out among them: 1 - (1 - confidence) / K.
2. ``met_on_sample``: as far as these samples tell, the engine is more likely inside the budget than not.
3. ``not_met``: it is not. A drop on the samples inside the budget is not enough: few samples of an engine that loses 2% often lose none.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy.budget import Budget, Claim
from calibration.accuracy.drop_posterior import DropEvidence, probabilities_over, slack_draws
from calibration.accuracy.intervals import (
    PairedTable,
    at_least_as_counted,
    bca_bounds,
    drop_upper_bound,
    margin_bounds,
    proportion_lower_bound,
    t_bounds,
)
from calibration.accuracy.margins.decision_margins import DecisionMargins
from calibration.accuracy.margins.selection import corrected_confidence
from calibration.accuracy.metrics import Metric
from calibration.accuracy.paired_claims import (
    ROUNDING,
    exact_budget,
    is_absolute,
    is_surely_inside,
    least_samples,
    meets_with_confidence,
    samples_for_claim,
)
from calibration.process.lazy_import import deferred

special = deferred("scipy.special")

MIN_BOOTSTRAP_SAMPLES = 1000
DEFAULT_CONFIDENCE = 0.95
MOST_LIKELY_OVER = 0.5  # probability of being over the budget with which an engine is no longer taken for inside


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
    probability_over_budget: float | None = None,
    chosen_from: int = 1,
    counts_needed: bool = True,
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
        probability_over_budget: What all engines of the job say together (``drop_posterior``); by default what this one says alone.
        chosen_from: How many engines could have been chosen by the same samples; 1 for samples that the search did not see.
        counts_needed: Whether to say how many samples would do, which takes longer than all else; None is said where not.
    """
    baseline, engine = _checked(baseline, engine)
    if probability_over_budget is None:
        evidence = drop_evidence(metric, baseline, engine, budget)
        probability_over_budget = probabilities_over(slack_draws([evidence], rng, are_chosen_from=False))[0]
    tested = corrected_confidence(confidence, chosen_from)
    if (claim := budget.claim) is not None and are_zeros_and_ones(metric, baseline, engine):
        table = table_of(baseline, engine)
        largest = budget.largest_drop(table.baseline)
        found = _judge_paired(metric, table, claim, largest, confidence, selection, probability_over_budget, chosen_from)
        if not counts_needed or found.samples_needed is not None:
            return found
        can_gain = not metric.is_perfect_by_definition
        return replace(found, samples_needed=samples_for_claim(table, claim, tested, can_gain=can_gain))
    margins = budget.margins(baseline, engine)
    n, theta = len(margins), float(margins.mean())
    is_bootstrapped = n >= MIN_BOOTSTRAP_SAMPLES
    if is_bootstrapped:
        (low, high), (lowest, _) = (bca_bounds(np.append(margins, margins.min()), level, rng) for level in (confidence, tested))
    else:
        (low, high), lowest = t_bounds(margins, confidence), -np.inf
    probability_over_budget = at_least_as_counted(probability_over_budget, high, confidence)
    is_sure = lowest >= -ROUNDING and probability_over_budget <= 1.0 - confidence
    largest = budget.largest_drop(float(baseline.mean()))
    return AccuracyVerdict(
        answer=_answer(probability_over_budget, is_sure=is_sure),
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
        probability_over_budget=probability_over_budget,
        samples_needed=_samples_for_mean(margins, tested, is_decided=is_sure),
        selection=selection,
    )


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
    if (claim := budget.claim) is None or budget.min_score is not None or metric.is_real_valued or not is_binary:
        return n >= MIN_BOOTSTRAP_SAMPLES
    if n < 1:
        return False
    can_gain = not metric.is_perfect_by_definition
    flips = min(n, math.ceil(flip_rate * n - ROUNDING))
    gained = flips // 2 if can_gain else 0
    table = PairedTable(both=n - flips, lost=flips - gained, gained=gained, wrong=0)
    return meets_with_confidence(table, claim, confidence, can_gain=can_gain)


def smallest_n(budget: Budget, confidence: float, *, metric: Metric = Metric.AGREEMENT) -> int | None:
    """Return how many samples show ``met`` when not one score changes and the baseline is always right: the least that can do.

    Args:
        budget: How much may be lost.
        confidence: Of the verdict, 0.5-1.
        metric: What the scores are.

    Returns:
        A number of samples, or None if no number could (a budget of nothing).
    """
    if (claim := budget.claim) is None or metric.is_real_valued:
        return MIN_BOOTSTRAP_SAMPLES
    can_gain = not metric.is_perfect_by_definition

    def is_enough(n: int) -> bool:
        return meets_with_confidence(PairedTable(both=n, lost=0, gained=0, wrong=0), claim, confidence, can_gain=can_gain)

    return least_samples(is_enough, 1)


def _judge_paired(
    metric: Metric,
    table: PairedTable,
    claim: Claim,
    largest: float,
    confidence: float,
    selection: Selection,
    probability: float,
    chosen_from: int,
) -> AccuracyVerdict:
    can_gain = not metric.is_perfect_by_definition
    low, high = (bound + claim.drop for bound in margin_bounds(table, claim.ratio, confidence))
    if is_absolute(claim, can_gain=can_gain):
        low = min(low, proportion_lower_bound(table.both + table.gained, table.n, confidence) + claim.drop)
    else:
        allowed, left = exact_budget(table, claim, confidence, can_gain=can_gain)
        low = min(low, allowed - drop_upper_bound(table.n, table.lost, table.gained, left, can_gain=can_gain))
    probability = at_least_as_counted(probability, high, confidence)
    is_sure = is_surely_inside(table, claim, confidence, can_gain=can_gain, probability_over_budget=probability, chosen_from=chosen_from)
    least_drop = -1.0 if can_gain else 0.0
    return AccuracyVerdict(
        answer=_answer(probability, is_sure=is_sure),
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
        probability_over_budget=probability,
        samples_needed=table.n if is_sure else None,  # it takes a search: ``judge``
        selection=selection,
    )


def drop_evidence(
    metric: Metric,
    baseline: NDArray[np.float64],
    engine: NDArray[np.float64],
    budget: Budget,
    *,
    margins: DecisionMargins | None = None,
    are_outputs_equal: bool = False,
) -> DropEvidence:
    """Return what the scores of an engine say of its budget.

    Args:
        metric: What the scores are.
        baseline: (samples,) the float model's scores.
        engine: (samples,) the engine's scores on the same samples.
        budget: How much may be lost.
        margins: Of the same samples, where they are known; taken where the scores are their signs.
        are_outputs_equal: Whether the engine's outputs are the float model's bit for bit.
    """
    is_paired = budget.claim is not None and are_zeros_and_ones(metric, baseline, engine)
    if budget.min_score is not None:  # the engine's own errors count, also those that the float model has
        allowed, worse = np.full(len(engine), metric.spec.perfect - budget.min_score), metric.spec.perfect - engine
        return DropEvidence(allowed, worse, is_paired, can_gain=False, claim=None, are_outputs_equal=are_outputs_equal)
    allowed = budget.margins(baseline, baseline)
    can_gain = not metric.is_perfect_by_definition
    if margins is not None and not (
        is_paired and np.array_equal(margins.reference > 0, baseline == 1.0) and np.array_equal(margins.engine > 0, engine == 1.0)
    ):
        margins = None  # the scores are of something else
    worse = allowed - budget.margins(baseline, engine)
    return DropEvidence(allowed, worse, is_paired, can_gain, budget.claim, margins, are_outputs_equal)


def _samples_for_mean(margins: NDArray[np.float64], confidence: float, *, is_decided: bool) -> int | None:
    theta = float(margins.mean())
    if is_decided:
        return len(margins)
    if theta <= ROUNDING or len(margins) == 1:
        return None
    needed = math.ceil((float(special.ndtri(confidence)) * float(margins.std(ddof=1)) / theta) ** 2)
    return max(needed, MIN_BOOTSTRAP_SAMPLES, len(margins) + 1 if len(margins) >= MIN_BOOTSTRAP_SAMPLES else 0)


def _answer(probability_over_budget: float, *, is_sure: bool) -> Answer:
    if is_sure:
        return Answer.MET
    return Answer.MET_ON_SAMPLE if probability_over_budget < MOST_LIKELY_OVER else Answer.NOT_MET


def are_zeros_and_ones(metric: Metric, baseline: NDArray[np.float64], engine: NDArray[np.float64]) -> bool:
    """Return whether the scores are 0 or 1; agreement is not where several predictions make a sample, a user's own metric may be."""
    if metric.is_real_valued:
        return False
    return bool(np.isin(baseline, (0.0, 1.0)).all() and np.isin(engine, (0.0, 1.0)).all())


def table_of(baseline: NDArray[np.float64], engine: NDArray[np.float64]) -> PairedTable:
    """Return how many of the samples, (samples,) scores of 0 or 1, fall into each cell."""
    was, is_now = baseline == 1.0, engine == 1.0
    both, lost, gained = (int(np.count_nonzero(cell)) for cell in (was & is_now, was & ~is_now, ~was & is_now))
    return PairedTable(both, lost, gained, len(baseline) - both - lost - gained)


def _difference(budget: float, margin: float) -> float:
    """Return the drop that leaves the margin of the budget: exactly zero where only the rounding of their sums parts the two."""
    return 0.0 if abs(budget - margin) <= ROUNDING * abs(budget) else budget - margin


def _checked(baseline: NDArray[np.float64], engine: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    baseline, engine = np.asarray(baseline, dtype=np.float64), np.asarray(engine, dtype=np.float64)
    if baseline.ndim != 1 or baseline.shape != engine.shape or not baseline.size:
        raise ValueError(f"expected two arrays (samples,) of the same length, found shapes {baseline.shape} and {engine.shape}")
    if not (np.isfinite(baseline).all() and np.isfinite(engine).all()):
        raise ValueError("scores must be finite")
    return baseline, engine
