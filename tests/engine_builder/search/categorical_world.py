"""A world whose layers take one of several precisions: what each layer precision drops and saves is known, and every engine follows from
it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Accuracy, Latency, Trial, failed_trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.predicted_front import frontier
from engine_builder.search.search import Search
from engine_builder.search.search_space import QuantizedLayers, eligible_from, one_format_engines
from engine_builder.search.time_model import TensorEdge, Timed, TimeModel, fit

BASELINE_SCORE = 0.9
KINDS = (Precision.INT8, Precision.FP8, Precision.INT4)


@dataclass(frozen=True, eq=False)
class CategoricalWorld:
    """Layers in a chain; ``drop`` is (layer precisions,) of the score, and so is the loss."""

    layer_precisions: tuple[LayerPrecision, ...]
    drop: NDArray[np.float64]
    times: TimeModel  # the true one
    budget: float
    broken: frozenset[Precision] = frozenset()  # no engine with one of these can be built

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return tuple(dict.fromkeys(layer_precision.precision for layer_precision in self.layer_precisions))

    def true_drop(self, quantized: QuantizedLayers) -> float:
        return float(
            sum(
                drop
                for layer_precision, drop in zip(self.layer_precisions, self.drop, strict=True)
                if quantized.get(layer_precision.layer) is layer_precision.precision
            )
        )

    def fingerprint(self, quantized: QuantizedLayers) -> str:
        return "|".join(f"{layer}:{precision}" for layer, precision in sorted(quantized.items()))

    def trial(self, index: int, quantized: QuantizedLayers, order: str) -> Trial:
        if self.broken & set(quantized.values()):
            return failed_trial(index, self.fingerprint(quantized), dict(quantized), order, "the compiler crashed")
        drop, ratio = self.true_drop(quantized), self.times.ratio(quantized)
        accuracy = Accuracy(BASELINE_SCORE - drop, BASELINE_SCORE, self.budget - drop + 1e-12, drop, binary=False, samples=1000)
        latency = Latency(ratio, ratio, 0.0, 100, 1.0, 0.0, ratio)
        return Trial(
            index,
            self.fingerprint(quantized),
            dict(quantized),
            order,
            len(quantized),
            accuracy,
            accuracy,
            drop,
            latency,
            1,
            None,
            1.0,
            None,
        )

    def sequences(self, trials: Sequence[Trial]) -> Iterator[CandidateSequence]:
        """Yield the frontier of the model fitted to the trials, from the gains of the precisions that were timed."""
        for name in ("frontier", "refine"):
            yield self._predicted(trials, name, self.drop)

    def fastest(self, trials: Sequence[Trial]) -> CandidateSequence:
        """Return the assignment that the same model predicts to be fastest, whatever its loss."""
        found = self._predicted(trials, "fastest", np.zeros_like(self.drop))
        return CandidateSequence(found.name, found.rungs[-1:], found.ratios[-1:])

    def _predicted(self, trials: Sequence[Trial], name: str, drop: NDArray[np.float64]) -> CandidateSequence:
        timed = [Timed(trial.precisions, trial.latency.ratio) for trial in trials if trial.latency is not None]
        known = {precision for trial in timed for precision in trial.quantized.values()}
        places = [place for place, layer_precision in enumerate(self.layer_precisions) if layer_precision.precision in known]
        chosen = [self.layer_precisions[place] for place in places]
        times = fit(1.0, {layer_precision: self.times.gain_ms[layer_precision] for layer_precision in chosen}, self.times.edges, timed)
        points = frontier(chosen, drop[places], np.zeros((len(places),) * 2), times)
        candidates = tuple({layer_precision.layer: layer_precision.precision for layer_precision in point.quantized} for point in points)
        return CandidateSequence(name, candidates, tuple(point.ratio for point in points))

    def search(self) -> Search:
        return Search(
            one_format_engines(eligible_from(self.layer_precisions), self.precisions),
            self.sequences,
            self.fingerprint,
            max_trials=None,
            max_seconds=None,
            seconds=lambda: 0.0,
            view=lambda trials: lambda trial: trial.on_search,
            fastest=self.fastest,
        )

    def run(self) -> tuple[Trial, ...]:
        search = self.search()
        while (proposal := search.next()) is not None:
            search.tell(self.trial(len(search.trials), proposal.quantized, proposal.order))
        return tuple(search.trials)

    def best_ratio(self) -> float:
        """Return the latency of the fastest assignment that keeps the budget, of all there are."""
        eligible = eligible_from(self.layer_precisions)
        every = itertools.product(*((None, *kinds) for kinds in eligible.values()))
        assignments = ({layer: kind for layer, kind in zip(eligible, choice, strict=True) if kind is not None} for choice in every)
        return min(self.times.ratio(quantized) for quantized in assignments if self.true_drop(quantized) <= self.budget)


def chain_world(layers: int, seed: int, *, kinds: Sequence[Precision] = KINDS, share: float = 0.3) -> CategoricalWorld:
    """Return a chain of layers of random drops and gains, with a budget that is a share of what the first one-format engine drops."""
    rng = np.random.default_rng(seed)
    names = [f"l{index}" for index in range(layers)]
    edges = [
        TensorEdge(None, (names[0],), False, 4000),
        *(TensorEdge(one, (other,), False, 4000) for one, other in itertools.pairwise(names)),
    ]
    layer_precisions = tuple(LayerPrecision(name, kind) for name in names for kind in kinds)
    drop = 10.0 ** rng.uniform(-4.0, -2.0, len(layer_precisions))
    gains = dict(zip(layer_precisions, rng.uniform(0.1, 0.7, len(layer_precisions)) / layers, strict=True))
    times = TimeModel(1.0, gains, tuple(edges), 1.5e-6, dict.fromkeys(kinds, 0.01 / layers))
    return CategoricalWorld(layer_precisions, drop, times, share * float(drop[:: len(kinds)].sum()))
