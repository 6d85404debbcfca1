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
from numpy.typing import NDArray

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
        layers = tuple(low)
        return Predictor(self, layers).ratio(np.ones(len(layers), dtype=np.bool_))


class Predictor:
    """A time model over a fixed list of layers that may be low, all others being float: many predictions, fast."""

    def __init__(self, model: TimeModel, layers: Sequence[str]) -> None:
        """Lay out the gains of the layers, and the elements that each flow converts."""
        self._baseline_ms = model.baseline_ms
        self._conversion_ms = model.conversion_ms
        self._cost_ms = np.array([model.overhead_ms / max(len(model.gain_ms), 1) - model.gain_ms.get(layer, 0.0) for layer in layers])
        self._flows = FlowTable(model.flows, layers)

    def ratio(self, low: NDArray[np.bool_]) -> float:
        """Return the predicted latency over the baseline's.

        Args:
            low: (layers,) true where a layer is low.
        """
        spent = float(self._cost_ms @ low) + self._conversion_ms * self._flows.converted(low)
        return (self._baseline_ms + spent) / self._baseline_ms


class FlowTable:
    """Flows as arrays over a fixed list of layers that may be low, all others being float."""

    def __init__(self, flows: Sequence[Flow], layers: Sequence[str]) -> None:
        """Lay out who writes and who reads each flow."""
        place = {layer: index for index, layer in enumerate(layers)}
        nobody = len(layers)
        self._writer = np.array([nobody if flow.producer is None else place.get(flow.producer, nobody) for flow in flows], dtype=np.intp)
        self._reads = np.array([[layer in flow.readers for layer in layers] for flow in flows], dtype=np.float64).reshape(
            len(flows), nobody
        )
        self._readers = np.array([len(set(flow.readers)) + flow.float_readers for flow in flows])
        self._elements = np.array([float(flow.elements) for flow in flows])

    def converted(self, low: NDArray[np.bool_]) -> float:
        """Return the elements that an engine quantizes from float or dequantizes to float.

        Args:
            low: (layers,) true where a layer is low.
        """
        written = np.append(low, False)[self._writer]
        low_readers = self._reads @ low
        quantized = ~written & (low_readers > 0)
        dequantized = written & (low_readers < self._readers)
        return float(self._elements @ (quantized | dequantized))


def converted(flows: Sequence[Flow], low: Collection[str]) -> float:
    """Return the elements that an engine with these low layers quantizes from float or dequantizes to float."""
    return FlowTable(flows, tuple(low)).converted(np.ones(len(low), dtype=np.bool_))


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
    elements = np.array([converted(flows, trial.low) for trial in trials]) - share * converted(flows, lowest.low)
    excess = np.array([unexplained(trial) for trial in trials]) - share * unexplained(lowest)
    weight = (TIMING_ERROR * baseline_ms / FIRST_GUESS_MS) ** 2  # of the first guess, as if it were one more trial
    kappa = max(0.0, float((elements @ excess + weight * FIRST_GUESS_MS) / (elements @ elements + weight)))
    overhead = (unexplained(lowest) - kappa * converted(flows, lowest.low)) * len(gain) / len(lowest.low)
    return replace(bare, conversion_ms=kappa, overhead_ms=overhead)
