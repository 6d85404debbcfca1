"""What orders are judged by: loss and agreement of low networks on held-out pictures, which no order saw."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from benchmarks.order_measurements import KINDS, SCHEME, Draw, Network, Pictures, with_rounded_weights
from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.task_losses import Comparison
from engine_builder.backends.onnxruntime.cpu import session_options
from engine_builder.qdq.onnxruntime_dialect import rewrite


@dataclass(frozen=True, slots=True)
class Judged:
    """A low network against the float one."""

    loss: float  # mean divergence of the outputs
    error: float  # its standard error over pictures
    agreement: float  # share of pictures with the float network's first class


class HeldOut:
    """Runs low networks on held-out pictures, each once. Not thread-safe."""

    def __init__(self, network: Network, pictures: Pictures) -> None:
        """Run the float network.

        Args:
            network: The network.
            pictures: The held-out pictures, (n, ...) float32.
        """
        self._network = network
        self._pictures = pictures
        self._float = self._logits(network.model)
        self._comparison = Comparison(KINDS, [self._float])
        self._known: dict[tuple[frozenset[Decision], str], Judged] = {}

    def of(self, low: Collection[Decision], draw: Draw) -> Judged:
        """Return what a set of decisions does.

        Args:
            low: The decisions.
            draw: Of which the network is made; networks that hold nothing of it are shared between draws.
        """
        key = frozenset(low), draw.name if draw.levels or any(one.precision is Precision.INT8 for one in low) else ""
        if key not in self._known:
            logits = self._logits(low_network(self._network, low, draw))
            losses = self._comparison.losses([logits])
            error = float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else math.inf
            agreement = float(np.mean(logits.argmax(axis=1) == self._float.argmax(axis=1)))
            self._known[key] = Judged(float(losses.mean()), error, agreement)
        return self._known[key]

    def of_prefixes(self, order: Sequence[Decision], draw: Draw) -> list[Judged]:
        """Return what every prefix of an order does, of one decision to all."""
        return [self.of(order[: count + 1], draw) for count in range(len(order))]

    @property
    def networks_run(self) -> int:
        """How many different networks were run."""
        return len(self._known)

    def _logits(self, model: onnx.ModelProto) -> Pictures:
        session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"])
        return np.concatenate([np.asarray(session.run(None, batch)[0]) for batch in self._network.batches(self._pictures)])


def low_network(network: Network, low: Collection[Decision], draw: Draw) -> onnx.ModelProto:
    """Return the network with these decisions: an explicit model at int8, rounded weights below."""
    assignment = {decision.layer: decision.precision for decision in low}
    if Precision.INT8 in assignment.values():
        return rewrite(network.model, network.layers, assignment, draw.ranges, SCHEME)
    return with_rounded_weights(network, assignment, draw.levels)
