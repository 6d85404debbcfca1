"""A world to search in: layers of known cost, and engines whose samples, times and failures follow from them.

The true drop of an engine is ``beta * flips``, where ``flips`` adds up over its quantized layers. Which samples flip is drawn from the
assignment's fingerprint, so that a trial comes out the same however often and in whatever order it is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.number_formats.precision import Precision
from engine_builder.records.trial import Accuracy, Latency, Trial, failed_trial
from engine_builder.search.candidate_sequence import CandidateSequence
from engine_builder.search.search import Search
from engine_builder.search.search_space import QuantizedLayers

BASELINE_SCORE = 0.9
SPEEDUP = 0.5  # of the baseline's latency, saved by every layer together


@dataclass(frozen=True)
class FakeWorld:
    """Layers that flip samples when quantized."""

    flips: tuple[float, ...]  # share of the samples that each layer flips
    budget: float = 0.001  # largest drop allowed
    beta: float = 1.0  # drop per flip
    samples: int | None = None  # None: no noise, every engine shows its true drop
    is_binary: bool = True
    seconds: float = 1.0  # of one trial
    seed: int = 0
    gains: tuple[float, ...] | None = None  # of the baseline's latency; SPEEDUP shared out evenly if None
    is_broken: Callable[[frozenset[str]], bool] = field(default=lambda quantized: False)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(f"layer{index:03}" for index in range(len(self.flips)))

    @property
    def all_quantized(self) -> dict[str, Precision]:
        return dict.fromkeys(self.layers, Precision.INT8)

    def quantized(self, names: Collection[str]) -> dict[str, Precision]:
        return {name: Precision.INT8 for name in self.layers if name in names}

    def flip_rate(self, quantized: Collection[str]) -> float:
        return sum(flips for name, flips in zip(self.layers, self.flips, strict=True) if name in quantized)

    def true_drop(self, quantized: Collection[str]) -> float:
        return self.beta * self.flip_rate(quantized)

    def ratio(self, quantized: Collection[str]) -> float:
        gains = self.gains or (SPEEDUP / max(len(self.flips), 1),) * len(self.flips)
        return 1.0 - sum(gain for name, gain in zip(self.layers, gains, strict=True) if name in quantized)

    def fingerprint(self, quantized: QuantizedLayers) -> str:
        return hashlib.sha256("|".join(sorted(quantized)).encode()).hexdigest()[:16]

    def accuracy(self, quantized: Collection[str]) -> Accuracy:
        rate, drop, count = self.flip_rate(quantized), self.true_drop(quantized), self.samples or 1_000_000
        if self.samples is not None:
            digits = hashlib.sha256("|".join(sorted(quantized)).encode()).digest()[:8]
            rng = np.random.default_rng([self.seed, int.from_bytes(digits, "big")])
            flipped = rng.binomial(count, min(rate, 1.0))
            lost = rng.binomial(flipped, (1.0 + self.beta) / 2.0)
            rate, drop = flipped / count, (2 * lost - flipped) / count
        slack = self.budget - drop
        return Accuracy(
            BASELINE_SCORE - drop, BASELINE_SCORE, 0.0 if abs(slack) < 1e-12 else slack, rate, binary=self.is_binary, samples=count
        )

    def trial(self, index: int, quantized: QuantizedLayers, order: str) -> Trial:
        fingerprint = self.fingerprint(quantized)
        if self.is_broken(frozenset(quantized)):
            return failed_trial(index, fingerprint, dict(quantized), order, "the compiler crashed")
        accuracy, ratio = self.accuracy(quantized), self.ratio(quantized)
        latency = Latency(10 * ratio, 11 * ratio, 0.05, 100, 10.0, 0.05, ratio)
        return Trial(
            index,
            fingerprint,
            dict(quantized),
            order,
            len(quantized),
            accuracy,
            accuracy,
            self.flip_rate(quantized),
            latency,
            1000,
            None,
            self.seconds,
            None,
        )

    def sequence(self, order: Sequence[str] | None = None, name: str = "loss") -> CandidateSequence:
        """Return the prefixes of an order, each with its true latency; the cheapest layers first if no order is given."""
        if order is None:
            order = sorted(self.layers, key=dict(zip(self.layers, self.flips, strict=True)).__getitem__)
        prefixes = [order[:count] for count in range(1, len(order))]
        return CandidateSequence(
            name, tuple(self.quantized(prefix) for prefix in prefixes), tuple(self.ratio(prefix) for prefix in prefixes)
        )

    def search(
        self,
        sequences: Sequence[CandidateSequence] | None = None,
        without_residual_adds: QuantizedLayers | None = None,
        largest_ratio: Callable[[float], float] | None = None,
        guesses: Sequence[CandidateSequence] = (),
        *,
        tries_folded: bool = False,
        **limits: float | None,
    ) -> Search:
        made, guessed = [self.sequence()] if sequences is None else sequences, iter(guesses)
        search = Search(
            {"all_low": self.all_quantized},
            lambda trials: iter(made),
            self.fingerprint,
            max_trials=limits.get("max_trials"),  # type: ignore[arg-type]  # one bag for both limits
            max_seconds=limits.get("max_seconds"),
            seconds=lambda: self.seconds * len(search.trials),
            view=lambda trials: lambda trial: trial.on_search,
            without_residual_adds=without_residual_adds,
            largest_ratio=largest_ratio,
            tries_folded=tries_folded,
            fastest=lambda trials: next(guessed, None),
        )
        return search


def run(world: FakeWorld, search: Search) -> tuple[Trial, ...]:
    """Search to the end."""
    while (proposal := search.next()) is not None:
        search.tell(world.trial(len(search.trials), proposal.quantized, proposal.order))
    return tuple(search.trials)


def fastest_met(trials: Sequence[Trial]) -> Trial:
    return min((trial for trial in trials if trial.met and trial.latency), key=lambda trial: trial.latency.ratio if trial.latency else 1.0)


def rising(count: int, top: float) -> tuple[float, ...]:
    """Return flips of ``count`` layers, each larger than the one before, ``top`` in all."""
    weights = np.arange(1, count + 1, dtype=np.float64)
    return tuple(float(value) for value in top * weights / weights.sum())
