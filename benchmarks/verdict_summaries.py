"""What many jobs together say of the rules that chose in them: outcomes, calibration of probabilities, wrong claims."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.verdict_jobs import CONFIDENCE, RULES, Job
from calibration.accuracy.budget import Claim
from calibration.accuracy.intervals import PairedTable
from calibration.accuracy.margins.selection import corrected_confidence
from calibration.accuracy.paired_claims import meets_with_confidence

BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)  # of stated probabilities
CHOSEN_FROM = (1, 8)  # engines of the closed form


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule did in jobs of a kind."""

    group: str
    n: int | None  # None: all sizes
    budget: float | None  # None: all budgets
    rule: str
    jobs: int
    inside: float  # share of jobs whose result is truly inside the budget; float, where it was kept, is
    shipped: float  # share of jobs that ship an engine
    shipped_inside: float | None  # share of those engines that are truly inside
    latency: float  # mean, of float's
    best: float  # the same, if the fastest engine that is truly inside were known
    honest_latency: float | None  # mean over the jobs in which the rule ``count`` shipped an engine that is truly inside


@dataclass(frozen=True, slots=True)
class Calibration:
    """Engines whose probability of being over the budget was stated within a bin."""

    group: str
    by: str  # "counts" or "margins"
    stated: float  # mean
    over: float  # share truly over
    engines: int


@dataclass(frozen=True, slots=True)
class Score:
    """Mean scores of the stated probabilities; lower is better."""

    group: str
    by: str
    brier: float
    log_loss: float


@dataclass(frozen=True, slots=True)
class Errors:
    """Of estimated drops, over all engines of all jobs of a kind."""

    group: str
    n: int
    count: float  # root mean square, of the drop on the samples
    margins: float  # root mean square, of the expected drop
    bias: float  # mean error of the expected drop


@dataclass(frozen=True, slots=True)
class WrongClaims:
    """The kind of job in which a rule's claim at 95% is wrong most often."""

    rule: str
    population: str
    n: int
    budget: float
    jobs: int
    wrong: float  # share of jobs
    low: float  # Clopper-Pearson, 99%


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """Share of jobs with a wrong claim where all engines are at the budget and independent: the worst that binomial counts can do."""

    rule: str
    engines: int
    n: int
    wrong: float  # at the worst of the budgets


@dataclass(frozen=True, slots=True)
class Findings:
    """All of it."""

    outcomes: tuple[Outcome, ...]
    errors: tuple[Errors, ...]
    calibration: tuple[Calibration, ...]
    scores: tuple[Score, ...]
    wrong_claims: tuple[WrongClaims, ...]
    closed_form: tuple[ClosedForm, ...]


def summarized(done: Sequence[Job], sizes: Sequence[int], budgets: Sequence[float]) -> Findings:
    """Return what the jobs say, and the closed form for these sizes and budgets."""
    return Findings(
        tuple(outcomes(done)),
        tuple(errors(done)),
        tuple(calibrations(done)),
        tuple(scores(done)),
        tuple(worst_claims(done)),
        tuple(closed_form(sizes, budgets)),
    )


def outcomes(done: Sequence[Job]) -> list[Outcome]:
    """Return what each rule did, by group and sample size, by group and budget, and by group."""
    kinds: dict[tuple[str, int | None, float | None], list[Job]] = defaultdict(list)
    for job in done:
        kinds[job.group, job.n, None].append(job)
        kinds[job.group, None, job.budget].append(job)
        kinds[job.group, None, None].append(job)
    found = []
    for (group, n, budget), members in kinds.items():
        honest = [job for job in members if job.choices["count"].latency < 1.0 and not job.choices["count"].is_over]
        for rule in RULES:
            choices = [job.choices[rule] for job in members]
            engines = [choice for choice in choices if choice.latency < 1.0]
            found.append(
                Outcome(
                    group,
                    n,
                    budget,
                    rule,
                    len(members),
                    float(np.mean([not choice.is_over for choice in choices])),
                    len(engines) / len(choices),
                    float(np.mean([not choice.is_over for choice in engines])) if engines else None,
                    float(np.mean([choice.latency for choice in choices])),
                    float(np.mean([job.fastest_inside for job in members])),
                    float(np.mean([job.choices[rule].latency for job in honest])) if honest else None,
                )
            )
    return found


def errors(done: Sequence[Job]) -> list[Errors]:
    """Return how far estimated drops are off."""
    kinds: dict[tuple[str, int], list[tuple[float, float, float]]] = defaultdict(list)
    for job in done:
        kinds[job.group, job.n].extend(job.drops)
    found = []
    for (group, n), rows in kinds.items():
        counted, expected, true = np.array(rows).T
        by_count, by_margins = (float(np.sqrt(np.mean((estimate - true) ** 2))) for estimate in (counted, expected))
        found.append(Errors(group, n, by_count, by_margins, float(np.mean(expected - true))))
    return found


def calibrations(done: Sequence[Job]) -> list[Calibration]:
    """Return how often engines were truly over the budget, by what was stated of them."""
    found = []
    for group, by, stated, is_over in _stated(done):
        bins = np.minimum(np.searchsorted(BINS, stated, side="right") - 1, len(BINS) - 2)
        for index in np.unique(bins):
            own = bins == index
            found.append(Calibration(group, by, float(stated[own].mean()), float(is_over[own].mean()), int(own.sum())))
    return found


def scores(done: Sequence[Job]) -> list[Score]:
    """Return the Brier score and the log loss (of probabilities kept within 0.001 of certainty) of what was stated."""
    found = []
    for group, by, stated, is_over in _stated(done):
        right = np.where(is_over > 0, stated, 1.0 - stated)
        found.append(Score(group, by, float(np.mean((1.0 - right) ** 2)), float(-np.mean(np.log(np.clip(right, 1e-3, 1.0 - 1e-3))))))
    return found


def worst_claims(done: Sequence[Job], count: int = 3) -> list[WrongClaims]:
    """Return, for each rule with a confidence, the kinds of jobs with most wrong claims."""
    found = []
    for rule in (rule for rule in RULES if "95%" in rule):
        kinds: dict[tuple[str, int, float], list[bool]] = defaultdict(list)
        for job in done:
            kinds[job.population, job.n, job.budget].append(job.choices[rule].is_over)
        worst = sorted(kinds.items(), key=lambda item: -float(np.mean(item[1])))[:count]
        for (population, n, budget), wrong in worst:
            low = float(stats.binomtest(sum(wrong), len(wrong), 0.5).proportion_ci(0.98, method="exact").low)
            found.append(WrongClaims(rule, population, n, budget, len(wrong), float(np.mean(wrong)), low))
    return found


def closed_form(sizes: Sequence[int], budgets: Sequence[float]) -> list[ClosedForm]:
    """Return the largest share of wrong claims that independent engines at the budget can cause, for each rule and size.

    An engine with a share of flips just over the budget b is claimed to meet it where its flips, binomial, are at most the most that the
    rule lets through, x: with probability F(x; n, b). At least one of K independent ones is, with 1 - (1 - F)^K. Judged in an order, the
    first of them must be: F, whatever K is.
    """
    found = []
    for engines in CHOSEN_FROM:
        kinds = {"count, 95%": (CONFIDENCE, engines), "margins, 95%": (CONFIDENCE, 1)}
        kinds["margins, 95%, any"] = (corrected_confidence(CONFIDENCE, engines), engines)
        for rule, (confidence, tested) in kinds.items():
            for n in sizes:
                wrong = [1.0 - (1.0 - _wrong_claim(n, budget, confidence)) ** tested for budget in budgets]
                found.append(ClosedForm(rule, engines, n, max(wrong)))
    return found


def _wrong_claim(n: int, budget: float, confidence: float) -> float:
    most = -1
    while most < n and meets_with_confidence(PairedTable(n - most - 1, most + 1, 0, 0), Claim(1.0 - budget), confidence, can_gain=False):
        most += 1
    return float(stats.binom.cdf(most, n, budget)) if most >= 0 else 0.0


def _stated(done: Sequence[Job]) -> Iterator[tuple[str, str, NDArray[np.float64], NDArray[np.float64]]]:
    for group in dict.fromkeys(job.group for job in done):
        said = np.array([one for job in done if job.group == group for one in job.said], dtype=np.float64)
        for column, by in enumerate(("counts", "margins")):
            yield group, by, said[:, column], said[:, 2]
