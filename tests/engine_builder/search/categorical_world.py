"""A world whose layers take one of several precisions: what each decision drops and saves is known, and every engine follows from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Accuracy, Latency, Trial, failed_trial
from engine_builder.search.predicted_front import frontier
from engine_builder.search.search import Ladder, Search
from engine_builder.search.search_space import Low, able_from, uniform_engines
from engine_builder.search.time_model import Flow, Timed, TimeModel, fit

BASELINE_SCORE = 0.9
KINDS = (Precision.INT8, Precision.FP8, Precision.INT4)


@dataclass(frozen=True, eq=False)
class CategoricalWorld:
    """Layers in a chain; ``drop`` is (decisions,) of the score, and so is the loss."""

    decisions: tuple[Decision, ...]
    drop: NDArray[np.float64]
    times: TimeModel  # the true one
    budget: float
    broken: frozenset[Precision] = frozenset()  # no engine with one of these can be built

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return tuple(dict.fromkeys(decision.precision for decision in self.decisions))

    def true_drop(self, low: Low) -> float:
        return float(
            sum(drop for decision, drop in zip(self.decisions, self.drop, strict=True) if low.get(decision.layer) is decision.precision)
        )

    def fingerprint(self, low: Low) -> str:
        return "|".join(f"{layer}:{precision}" for layer, precision in sorted(low.items()))

    def trial(self, index: int, low: Low, order: str) -> Trial:
        if self.broken & set(low.values()):
            return failed_trial(index, self.fingerprint(low), dict(low), order, "the compiler crashed")
        drop, ratio = self.true_drop(low), self.times.ratio(low)
        accuracy = Accuracy(BASELINE_SCORE - drop, BASELINE_SCORE, self.budget - drop + 1e-12, drop, binary=False, samples=1000)
        latency = Latency(ratio, ratio, 0.0, 100, 1.0, 0.0, ratio)
        return Trial(index, self.fingerprint(low), dict(low), order, len(low), accuracy, accuracy, drop, latency, 1, None, 1.0, None)

    def ladders(self, trials: Sequence[Trial]) -> Iterator[Ladder]:
        """Yield the frontier of the model fitted to the trials, from the gains of the precisions that were timed."""
        for name in ("frontier", "refine"):
            timed = [Timed(trial.precisions, trial.latency.ratio) for trial in trials if trial.latency is not None]
            known = {precision for trial in timed for precision in trial.low.values()}
            places = [place for place, decision in enumerate(self.decisions) if decision.precision in known]
            chosen = [self.decisions[place] for place in places]
            times = fit(1.0, {decision: self.times.gain_ms[decision] for decision in chosen}, self.times.flows, timed)
            points = frontier(chosen, self.drop[places], np.zeros((len(places),) * 2), times)
            rungs = tuple({decision.layer: decision.precision for decision in point.low} for point in points)
            yield Ladder(name, rungs, tuple(point.ratio for point in points))

    def search(self) -> Search:
        return Search(
            uniform_engines(able_from(self.decisions), self.precisions),
            self.ladders,
            self.fingerprint,
            max_trials=None,
            max_seconds=None,
            seconds=lambda: 0.0,
            view=lambda trials: lambda trial: trial.on_search,
        )

    def run(self) -> tuple[Trial, ...]:
        search = self.search()
        while (proposal := search.next()) is not None:
            search.tell(self.trial(len(search.trials), proposal.low, proposal.order))
        return tuple(search.trials)

    def best_ratio(self) -> float:
        """Return the latency of the fastest assignment that keeps the budget, of all there are."""
        able = able_from(self.decisions)
        every = itertools.product(*((None, *kinds) for kinds in able.values()))
        lows = ({layer: kind for layer, kind in zip(able, choice, strict=True) if kind is not None} for choice in every)
        return min(self.times.ratio(low) for low in lows if self.true_drop(low) <= self.budget)


def chain_world(layers: int, seed: int, *, kinds: Sequence[Precision] = KINDS, share: float = 0.3) -> CategoricalWorld:
    """Return a chain of layers of random drops and gains, with a budget that is a share of what the first uniform engine drops."""
    rng = np.random.default_rng(seed)
    names = [f"l{index}" for index in range(layers)]
    flows = [Flow(None, (names[0],), False, 4000), *(Flow(one, (other,), False, 4000) for one, other in itertools.pairwise(names))]
    decisions = tuple(Decision(name, kind) for name in names for kind in kinds)
    drop = 10.0 ** rng.uniform(-4.0, -2.0, len(decisions))
    gains = dict(zip(decisions, rng.uniform(0.1, 0.7, len(decisions)) / layers, strict=True))
    times = TimeModel(1.0, gains, tuple(flows), 1.5e-6, dict.fromkeys(kinds, 0.01 / layers))
    return CategoricalWorld(decisions, drop, times, share * float(drop[:: len(kinds)].sum()))
