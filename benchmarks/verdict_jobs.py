"""What jobs on a few samples decide about a front, by the rule that counts flips and by the rule that reads margins, beside the truth.

A job draws n samples of a population and chooses one engine of its front; all engines are judged by the same samples, as in a job that
keeps none apart. Rules, each of which takes the fastest engine that it lets through, or float:

1. ``count``: the budget is met on the samples.
2. ``count, 95%``: the score bound and the exact bound say so, each engine by itself.
3. ``margins``: more likely inside than not, corrected for selection, and at least 3% faster.
4. ``no margins``: the same of decisions whose margins are not seen, by counts and the prior of Jeffreys.
5. ``margins, 95%``: the exact bound and the probability by margins say so of it and of every engine before it, slowest first.
6. ``margins, 95%, any``: the exact bound for as many engines as there are, and the probability by margins, in no order.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.verdict_populations import Population
from calibration.accuracy.budget import Budget, Claim
from calibration.accuracy.drop_posterior import probabilities_over, slack_draws
from calibration.accuracy.intervals import PairedTable, margin
from calibration.accuracy.margins.change_posterior import change_draws
from calibration.accuracy.margins.change_shares import expected_changes
from calibration.accuracy.margins.decision_margins import DecisionMargins
from calibration.accuracy.metrics import Metric
from calibration.accuracy.paired_claims import is_surely_inside, meets_with_confidence
from calibration.accuracy.verdict import MOST_LIKELY_OVER, drop_evidence
from calibration.process.lazy_import import deferred
from engine_builder.search.shipping_rule import is_worth_it
from engine_builder.timing import RelativeLatency

special = deferred("scipy.special")

CONFIDENCE = 0.95
DRAWS = 500  # of each posterior
RULES = ("count", "count, 95%", "margins", "no margins", "margins, 95%", "margins, 95%, any")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule chose in one job."""

    latency: float  # of float's; 1 where float was kept
    is_over: bool  # whether the engine's true drop exceeds the budget; float's does not
    probability: float  # of that, as the rule states it; 0 where float was kept


@dataclass(frozen=True, slots=True)
class Job:
    """One job: what each rule chose, and what was said of every engine, chosen or not."""

    population: str
    group: str
    n: int
    budget: float
    choices: dict[str, Choice]
    fastest_inside: float  # latency of the fastest engine that is truly inside
    drops: tuple[tuple[float, float, float], ...]  # of each engine: by count, by margins, true
    said: tuple[tuple[float, float, bool], ...]  # of each engine: probability by counts, by margins (not corrected), truly over


def jobs(population: Population, n: int, repeats: int, rng: np.random.Generator) -> Iterator[Job]:
    """Yield jobs of ``n`` samples, ``repeats`` for each budget of the population."""
    drops, total = population.drops(), len(population.engines[0])
    right = population.engines[0].table.baseline
    for _ in range(repeats):
        chosen = rng.choice(total, n, replace=False)
        engines = [one.of(chosen) for one in population.engines]
        alone = change_draws(engines, rng, are_chosen_from=False, draws=DRAWS)
        expected = [(_drop(one), expected_changes(one).drop) for one in engines]
        estimates = tuple((*both, float(true)) for both, true in zip(expected, drops, strict=True))
        together = change_draws(engines, rng, draws=DRAWS)
        for budget in population.budgets:
            is_over = drops > budget * right + _ROUNDING
            counted = [_counted(one, 1.0 - budget, rng) for one in engines]
            corrected = together.probabilities_over(1.0 - budget)
            unread = _without_margins(engines, 1.0 - budget, rng)
            passed = _passed(engines, population.latency, budget, corrected, unread)
            choices = {
                rule: _choice(
                    population.latency,
                    is_over,
                    passed[rule],
                    {"count": counted, "count, 95%": counted, "no margins": unread}.get(rule, corrected),
                )
                for rule in RULES
            }
            truly = population.latency[~is_over]
            said = tuple(zip(counted, alone.probabilities_over(1.0 - budget), (bool(one) for one in is_over), strict=True))
            yield Job(population.name, population.group, n, budget, choices, float(truly.min(initial=1.0)), estimates, said)


def _passed(
    engines: list[DecisionMargins],
    latency: NDArray[np.float64],
    budget: float,
    probabilities: tuple[float, ...],
    unread: tuple[float, ...],
) -> dict[str, list[bool]]:
    """Return which engines each rule lets through."""
    ratio, passed = 1.0 - budget, {rule: [False] * len(engines) for rule in RULES}
    tables, can_gain = [engine.table for engine in engines], engines[0].can_gain
    alone = (
        is_surely_inside(table, Claim(ratio), CONFIDENCE, can_gain=can_gain, probability_over_budget=probability)
        for table, probability in zip(tables, probabilities, strict=True)
    )
    sure = sum(1 for _ in itertools.takewhile(bool, alone))  # slowest first
    for index, engine in enumerate(engines):
        table = tables[index]
        passed["count"][index] = margin(table, ratio) >= -_ROUNDING
        passed["count, 95%"][index] = _meets(table, ratio, CONFIDENCE, can_gain)
        relative = RelativeLatency(float(latency[index]), 0.0)
        are_equal = bool(np.array_equal(engine.engine, engine.reference))
        is_worth = is_worth_it(relative, are_outputs_equal=are_equal)
        passed["margins"][index] = is_worth and probabilities[index] < MOST_LIKELY_OVER
        passed["no margins"][index] = is_worth and unread[index] < MOST_LIKELY_OVER
        passed["margins, 95%"][index] = is_worth and index < sure
        passed["margins, 95%, any"][index] = is_worth and is_surely_inside(
            table, Claim(ratio), CONFIDENCE, can_gain=can_gain, probability_over_budget=probabilities[index], chosen_from=len(engines)
        )
    return passed


def _without_margins(engines: list[DecisionMargins], ratio: float, rng: np.random.Generator) -> tuple[float, ...]:
    """Return how likely each engine is over the budget where its scores alone are seen."""
    metric = Metric.TOP1 if engines[0].can_gain else Metric.AGREEMENT
    reference = np.where(engines[0].reference > 0, 1.0, 0.0)
    evidence = [drop_evidence(metric, reference, np.where(one.engine > 0, 1.0, 0.0), Budget(min_relative=ratio)) for one in engines]
    return probabilities_over(slack_draws(evidence, rng, draws=DRAWS))


def _choice(latency: NDArray[np.float64], is_over: NDArray[np.bool_], passed: list[bool], probabilities: Sequence[float]) -> Choice:
    """Return the fastest of the engines that passed."""
    fitting = [index for index, one in enumerate(passed) if one]
    if not fitting:
        return Choice(1.0, False, 0.0)
    fastest = min(fitting, key=lambda index: float(latency[index]))
    return Choice(float(latency[fastest]), bool(is_over[fastest]), probabilities[fastest])


def chance_over_budget(table: PairedTable, ratio: float, rng: np.random.Generator, *, can_gain: bool = True, draws: int = 40_000) -> float:
    """Return what counts alone say: the probability that the budget is exceeded, from the prior of Jeffreys (1/2 in every possible cell).

    Args:
        table: The paired scores.
        ratio: The share r of the baseline's accuracy to keep, 0-1.
        rng: Draws from the posterior.
        can_gain: Whether the baseline can be wrong at all; if not, the answer is the closed form of a beta distribution.
        draws: How many.
    """
    if not can_gain:
        return float(special.betaincc(table.lost + 0.5, table.both + 0.5, 1 - ratio))
    counts = np.array([table.both, table.lost, table.gained, table.wrong], dtype=np.float64) + 0.5
    cells = rng.standard_gamma(counts, size=(draws, 4))
    return float(np.mean(cells @ np.array([1 - ratio, -ratio, 1.0, 0.0]) < 0))


def _drop(engine: DecisionMargins) -> float:
    return (engine.table.lost - engine.table.gained) / len(engine)


def _counted(engine: DecisionMargins, ratio: float, rng: np.random.Generator) -> float:
    return chance_over_budget(engine.table, ratio, rng, can_gain=engine.can_gain, draws=DRAWS)


@functools.lru_cache(maxsize=100_000)
def _meets(table: PairedTable, ratio: float, confidence: float, can_gain: bool) -> bool:
    return meets_with_confidence(table, Claim(ratio), confidence, can_gain=can_gain)


_ROUNDING = 1e-12
