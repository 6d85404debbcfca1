r"""Latency of any assignment, predicted from few measurements, with conversions between neighbours of different precision.

    T(S) = T(baseline) - sum over low layers l of gain_l + kappa * converted(S) + overhead * |S| / N

* gain_l: time of the layer's own kernel in the baseline engine minus that in the engine with every layer low, from the runtime's profile;
* converted(S): elements that are quantized because their producer is float, or dequantized because a reader is;
* kappa: milliseconds for one such element, fitted to the timed trials (least squares, with the first guess as a prior; not negative);
* overhead: what the above leaves unexplained of the engine with every layer low.

Gains of single layers alone do not predict anything here: what a layer saves depends on whether its neighbours are low too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

FIRST_GUESS_MS = 1.5e-6  # of converting one element, before any mixed engine was timed
TIMING_ERROR = 0.01  # of a timed ratio, about


@dataclass(frozen=True, slots=True)
class Flow:
    """A tensor between layers."""

    producer: str | None  # the layer whose low form writes it as integers; None if nothing does
    readers: tuple[str, ...]  # the layers whose low form reads it as integers
    float_readers: bool  # whether something else reads it, always as floats
    elements: int  # of one timed call


@dataclass(frozen=True, slots=True)
class Timed:
    """A timed assignment."""

    low: frozenset[str]
    ratio: float  # of the baseline's latency


@dataclass(frozen=True, slots=True)
class TimeModel:
    """Predicts the latency of an assignment as a ratio to the baseline's."""

    baseline_ms: float
    gain_ms: Mapping[str, float]
    flows: tuple[Flow, ...]
    conversion_ms: float  # kappa
    overhead_ms: float

    def ratio(self, low: Collection[str]) -> float:
        """Return the predicted latency over the baseline's.

        Args:
            low: Names of the low layers.
        """
        saved = sum(self.gain_ms.get(layer, 0.0) for layer in low)
        spent = self.conversion_ms * converted(self.flows, low) + self.overhead_ms * len(low) / max(len(self.gain_ms), 1)
        return (self.baseline_ms - saved + spent) / self.baseline_ms


def converted(flows: Sequence[Flow], low: Collection[str]) -> int:
    """Return the elements that an engine with these low layers quantizes from float or dequantizes to float."""
    total = 0
    for flow in flows:
        written = flow.producer is not None and flow.producer in low
        read_low = any(reader in low for reader in flow.readers)
        read_float = flow.float_readers or any(reader not in low for reader in flow.readers)
        total += flow.elements * ((read_low and not written) + (written and read_float))
    return total


def fit(baseline_ms: float, kernels_ms: Mapping[str, tuple[float, float]], flows: Sequence[Flow], trials: Sequence[Timed]) -> TimeModel:
    """Return the model that explains the timed trials best.

    Args:
        baseline_ms: Median latency of the baseline engine.
        kernels_ms: Each layer's own kernel in the baseline engine and with every layer low.
        flows: The tensors between layers.
        trials: What was timed; the assignment with most low layers fixes the overhead.
    """
    gain = {layer: high - low for layer, (high, low) in kernels_ms.items()}
    bare = TimeModel(baseline_ms, gain, tuple(flows), 0.0, 0.0)
    lowest = max(trials, key=lambda trial: len(trial.low), default=Timed(frozenset(), 1.0))
    if not lowest.low:
        return replace(bare, conversion_ms=FIRST_GUESS_MS)

    def unexplained(trial: Timed) -> float:
        return (trial.ratio - bare.ratio(trial.low)) * baseline_ms

    # ``lowest`` fixes the overhead for any kappa. With that put in, what is unexplained of every other trial is linear in kappa alone.
    share = np.array([len(trial.low) / len(lowest.low) for trial in trials])
    elements = np.array([float(converted(flows, trial.low)) for trial in trials]) - share * converted(flows, lowest.low)
    excess = np.array([unexplained(trial) for trial in trials]) - share * unexplained(lowest)
    weight = (TIMING_ERROR * baseline_ms / FIRST_GUESS_MS) ** 2  # of the first guess, as if it were one more trial
    kappa = max(0.0, float((elements @ excess + weight * FIRST_GUESS_MS) / (elements @ elements + weight)))
    overhead = (unexplained(lowest) - kappa * converted(flows, lowest.low)) * len(gain) / len(lowest.low)
    return replace(bare, conversion_ms=kappa, overhead_ms=overhead)
