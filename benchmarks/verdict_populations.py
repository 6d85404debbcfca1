"""Populations of 10,000 decisions whose true share of changes is known: the example networks' engines, and simulated ones.

A simulated population has margins of some shape, and a front of engines that change them by s u, where u is of some shape, too, and s is
found by bisection so that an engine changes a given share of the decisions. Corners are populations made to deceive: all engines of a
front are over the budget by the same small factor, so that shipping any is wrong; each has changes of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.verdict_engines import Front
from calibration.accuracy.margins.decision_margins import DecisionMargins, agreement_margins, label_margins, threshold_margins

Values = NDArray[np.float64]
Shape = Callable[[np.random.Generator, Values], Values]  # margins (samples,) -> changes (samples,) of size 1

SAMPLES = 10_000
FLIPS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)  # true shares of changed decisions of a simulated front
LATENCY = (0.95, 0.9, 0.82, 0.74, 0.66, 0.6, 0.55, 0.5)  # nominal, of float's
JUST_OVER = 1.2  # share of changes of a corner's engines, in budgets


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """A front of engines on all samples, slowest first."""

    name: str
    group: str  # "examples", "simulated" or "corners"
    latency: Values  # (engines,), of float's
    engines: tuple[DecisionMargins, ...]
    budgets: tuple[float, ...]  # shares of the float model's score that may be lost

    def drops(self) -> Values:
        """Return the true drop of each engine, (engines,)."""
        return np.array([(one.table.lost - one.table.gained) / one.table.n for one in self.engines])


def example_populations(fronts: Sequence[Front], budgets: tuple[float, ...]) -> Iterator[Population]:
    """Yield each front twice: judged by agreement with the float network, and by labels."""
    for front in fronts:
        agreeing = tuple(agreement_margins(front.reference, engine) for engine in front.engines)
        labelled = tuple(label_margins(front.labels, front.reference, engine) for engine in front.engines)
        yield Population(f"{front.name}, agreement", "examples", front.latency, agreeing, budgets)
        yield Population(f"{front.name}, top1", "examples", front.latency, labelled, budgets)


def simulated_populations(budgets: tuple[float, ...], rng: np.random.Generator) -> Iterator[Population]:
    """Yield fronts whose engines change more and more decisions."""
    for name, (margins, shape) in _pairs().items():
        reference = margins(rng)
        yield Population(name, "simulated", np.array(LATENCY), _front(reference, shape, FLIPS, rng), budgets)
    logits = rng.normal(0.0, 6.0, SAMPLES)
    yield Population("saturated probabilities", "simulated", np.array(LATENCY), _sigmoids(logits, FLIPS, None, rng), budgets)
    yield Population("probabilities in 8 bits", "simulated", np.array(LATENCY), _sigmoids(logits, FLIPS, 255, rng), budgets)


def corner_populations(budgets: tuple[float, ...], rng: np.random.Generator) -> Iterator[Population]:
    """Yield fronts whose engines are all just over one budget."""
    for budget in budgets:
        share = JUST_OVER * budget
        flips = (share,) * len(LATENCY)
        reference = _exponential(rng)
        fronts = {
            "normal changes": _front(reference, _normal, flips, rng),
            "outliers": _front(reference, _outliers(share), flips, rng),
            "hidden near 0": tuple(_hidden(reference, share, rng) for _ in flips),
        }
        for name, engines in fronts.items():
            yield Population(f"{name}, all just over", "corners", np.array(LATENCY), engines, (budget,))


def _pairs() -> Mapping[str, tuple[Callable[[np.random.Generator], Values], Shape]]:
    """Return margins and changes by the name of the population."""
    return {
        "normal changes": (_exponential, _normal),
        "few margins near 0": (lambda rng: rng.gamma(2.0, 2.0, SAMPLES), _normal),
        "many margins near 0": (lambda rng: rng.gamma(0.5, 2.0, SAMPLES), _normal),
        "heavy tails (t of 2)": (_exponential, lambda rng, m: rng.standard_t(2.0, len(m))),
        "wider far from 0": (_exponential, lambda rng, m: rng.standard_normal(len(m)) * (0.1 + m)),
        "wider near 0": (_exponential, lambda rng, m: rng.standard_normal(len(m)) * np.exp(-2.0 * m)),
        "towards 0": (_exponential, lambda rng, m: rng.standard_normal(len(m)) - 1.0),
        "skewed": (_exponential, lambda rng, m: 0.3 - rng.lognormal(-1.0, 1.0, len(m))),
        "ties": (lambda rng: np.ceil(4.0 * rng.exponential(1.0, SAMPLES)) / 4.0, lambda rng, m: np.round(rng.standard_normal(len(m)), 1)),
        "labels": (lambda rng: rng.normal(1.3, 1.0, SAMPLES), _normal),
        "labels, towards wrong": (lambda rng: rng.normal(1.3, 1.0, SAMPLES), lambda rng, m: rng.standard_normal(len(m)) - 0.5),
    }


def _exponential(rng: np.random.Generator) -> Values:
    return rng.exponential(1.0, SAMPLES)


def _normal(rng: np.random.Generator, margins: Values) -> Values:
    return rng.standard_normal(len(margins))


def _outliers(share: float) -> Shape:
    """Return changes that flip a share of the samples, however clear they are, and are next to nothing elsewhere."""

    def shape(rng: np.random.Generator, margins: Values) -> Values:
        return np.where(rng.permutation(len(margins)) < round(share * len(margins)), -1e6, 1e-6 * rng.standard_normal(len(margins)))

    return shape


def _hidden(reference: Values, share: float, rng: np.random.Generator) -> DecisionMargins:
    """Return an engine that just flips every other one of the least clear samples and leaves all else as it is.

    No change is large, and a change depends on nothing but the margin that it has to overcome.
    """
    near = np.argsort(reference)[: round(2.0 * share * len(reference))]
    flipped = rng.choice(near, round(share * len(reference)), replace=False)
    engine = reference.copy()
    engine[flipped] *= -0.1
    return DecisionMargins(reference, engine, can_gain=False)


def _front(reference: Values, shape: Shape, flips: Sequence[float], rng: np.random.Generator) -> tuple[DecisionMargins, ...]:
    can_gain = bool((reference < 0).any())
    engines = []
    for share in flips:
        change = shape(rng, reference)
        size = _size(reference, change, share)
        engines.append(DecisionMargins(reference, _not_zero(reference + size * change), can_gain))
    return tuple(engines)


def _sigmoids(logits: Values, flips: Sequence[float], levels: int | None, rng: np.random.Generator) -> tuple[DecisionMargins, ...]:
    """Return engines that change logits of a probability, in float32, rounded to so many levels."""
    engines = []
    for share in flips:
        change = rng.standard_normal(len(logits))
        moved = logits + _size(np.abs(logits), change * np.sign(logits), share) * change
        before, after = (np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float32) for x in (logits, moved))
        if levels is not None:
            after = np.round(after * levels) / np.float32(levels)
        engines.append(threshold_margins(before, after, 0.5, probabilities=True))
    return tuple(engines)


def _size(reference: Values, change: Values, share: float) -> float:
    """Return the factor of the changes at which a share of the decisions flips."""
    low, high = 1e-9, 1e9
    for _ in range(80):
        middle = float(np.sqrt(low * high))
        flipped = float(np.mean((reference + middle * change > 0) != (reference > 0)))
        low, high = (middle, high) if flipped < share else (low, middle)
    return high * (1.0 + 1e-9)


def _not_zero(margins: Values) -> Values:
    """Return the margins, those that are 0 on the side of the right."""
    return np.where(margins == 0, 1e-300, margins)
