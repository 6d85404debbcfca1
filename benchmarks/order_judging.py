"""What orders are judged by: loss and agreement of quantized networks on held-out pictures, which no order saw."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from benchmarks.order_measurements import KINDS, SCHEME, Draw, Network, Pictures, with_rounded_weights
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.task_losses import Comparison
from engine_builder.backends.onnxruntime.cpu import session_options
from engine_builder.qdq.onnxruntime_dialect import rewrite


@dataclass(frozen=True, slots=True)
class Judged:
    """A quantized network against the float one."""

    loss: float  # mean divergence of the outputs
    error: float  # its standard error over pictures
    agreement: float  # share of pictures with the float network's first class


class HeldOut:
    """Runs quantized networks on held-out pictures, each once. Not thread-safe."""

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
        self._known: dict[tuple[frozenset[LayerPrecision], str], Judged] = {}

    def of(self, quantized: Collection[LayerPrecision], draw: Draw) -> Judged:
        """Return what a set of layer precisions does.

        Args:
            quantized: The layer precisions.
            draw: Of which the network is made; networks that hold nothing of it are shared between draws.
        """
        key = frozenset(quantized), draw.name if draw.levels or any(one.precision is Precision.INT8 for one in quantized) else ""
        if key not in self._known:
            logits = self._logits(quantized_network(self._network, quantized, draw))
            losses = self._comparison.losses([logits])
            error = float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else math.inf
            agreement = float(np.mean(logits.argmax(axis=1) == self._float.argmax(axis=1)))
            self._known[key] = Judged(float(losses.mean()), error, agreement)
        return self._known[key]

    def of_prefixes(self, order: Sequence[LayerPrecision], draw: Draw) -> list[Judged]:
        """Return what every prefix of an order does, of one layer precision to all."""
        return [self.of(order[: count + 1], draw) for count in range(len(order))]

    @property
    def networks_run(self) -> int:
        """How many different networks were run."""
        return len(self._known)

    def _logits(self, model: onnx.ModelProto) -> Pictures:
        session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"])
        return np.concatenate([np.asarray(session.run(None, batch)[0]) for batch in self._network.batches(self._pictures)])


def quantized_network(network: Network, quantized: Collection[LayerPrecision], draw: Draw) -> onnx.ModelProto:
    """Return the network with these layer precisions: an explicit model at int8, rounded weights below."""
    assignment = {layer_precision.layer: layer_precision.precision for layer_precision in quantized}
    if Precision.INT8 in assignment.values():
        return rewrite(network.model, network.layers, assignment, draw.ranges, SCHEME)
    return with_rounded_weights(network, assignment, draw.levels)
