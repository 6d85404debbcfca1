"""What orders are made of and judged by: the probes of one calibration draw, and the held-out loss of every prefix.

INT8 prefixes are explicit models, built as the search builds them and run in ONNX Runtime. 4-bit prefixes are **simulated**: the prepared
model with weights that went through a 4-bit grid (symmetric, per output channel) and back, activations in float, since the target has no
such kernel; the probes see the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.dependency import dependency_matrix, measure_pairs, pairs_to_test
from calibration.hessian import HessianTrace, measure_traces
from calibration.layers import Layer, find_layers
from calibration.losses import losses
from calibration.metrics import OutputKind
from calibration.precision import ONNXRUNTIME_CPU_SCHEME, Precision, fake_quantize_weight
from calibration.prepare import prepare
from calibration.range_table import RangeMethod
from calibration.ranges import collect_ranges
from calibration.reference import ReferenceModel
from calibration.singles import Decision, measure_singles
from engine_builder.backends.ort_cpu import session_options
from engine_builder.probing import HESSIAN_BATCH, HESSIAN_BATCHES, PAIR_SAMPLES, PAIRS_PER_DECISION
from engine_builder.qdq.placement import ranges_of_moved_tensors
from engine_builder.qdq.rewrite import rewrite
from engine_builder.search.orders import dependency_order

Ranges = Mapping[str, tuple[float, float]]
Pictures = NDArray[np.float32]
BATCH = 64
SCHEME = ONNXRUNTIME_CPU_SCHEME
KINDS = (OutputKind.LOGITS,)
STEP_TRIES = 3  # forwards that settle a finite-difference step, at the least


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A prepared network with one input of pictures and one output of logits."""

    name: str
    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    input: str

    def decisions(self, precision: Precision) -> tuple[Decision, ...]:
        """Return every layer that the precision applies to, in graph order: at 4 bits only those with a weight."""
        return tuple(Decision(layer.name, precision) for layer in self.layers if precision is Precision.INT8 or layer.weight is not None)


@dataclass(frozen=True, slots=True)
class MeasuredOrder:
    """An order and what its measurements took.

    ``forwards`` counts one picture through the network from the probed layer on, at the least what was run.
    """

    decisions: tuple[Decision, ...]
    forwards: int
    cpu_seconds: float


def read_network(name: str, path: Path, picture: tuple[int, ...]) -> Network:
    """Return the prepared network.

    Args:
        name: What to call it.
        path: The ONNX file.
        picture: Shape of one picture.
    """
    model = prepare(onnx.load(path)).model
    source = model.graph.input[0].name
    return Network(name, model, find_layers(model, {source: (1, *picture)}), source)


def measured_ranges(network: Network, pictures: Pictures, scratch: Path) -> Ranges:
    """Return the min-max range of every tensor on the pictures, (n, ...) float32."""
    path = scratch / f"{network.name}.onnx"
    onnx.save_model(network.model, path)
    table = collect_ranges(path, network.layers, _batches(network, pictures, BATCH), method=RangeMethod.MINMAX)
    return ranges_of_moved_tensors(network.model, table.ranges)


def measured_orders(network: Network, precision: Precision, ranges: Ranges, pictures: Pictures) -> dict[str, MeasuredOrder]:
    """Return every guided order as one calibration draw gives it, with the sample counts of a job.

    Args:
        network: The network.
        precision: INT8 or INT4.
        ranges: Ranges of the activations on the same draw.
        pictures: The draw, (n, ...) float32.
    """
    decisions = network.decisions(precision)
    seconds: dict[str, float] = {}
    with _counted(seconds, "build"):
        reference = ReferenceModel(network.model, network.layers, ranges, SCHEME)
    with _counted(seconds, "singles"):
        singles = measure_singles(reference, KINDS, decisions, _batches(network, pictures, BATCH))
    with _counted(seconds, "traces"):
        probes = list(_batches(network, pictures[: HESSIAN_BATCHES * HESSIAN_BATCH], HESSIAN_BATCH))
        traces = measure_traces(reference, KINDS, SCHEME, ranges, probes, seed=0)
    pairs = pairs_to_test(singles, network.layers, SCHEME, PAIRS_PER_DECISION * len(decisions))
    with _counted(seconds, "pairs"):
        alone = {decision: singles.loss[:PAIR_SAMPLES, index] for index, decision in enumerate(decisions)}
        batches = list(_batches(network, pictures[:PAIR_SAMPLES], BATCH))
        tests = measure_pairs(reference, KINDS, network.layers, pairs, batches, alone)
    loss = singles.loss.mean(axis=0)
    hessian = _hessian(reference, network, precision, decisions, traces)
    screened, tested = dependency_matrix(singles, ()), dependency_matrix(singles, tests)
    forwards = {
        "singles": singles.loss.size,
        "traces": len(traces) * HESSIAN_BATCH * (len(probes) + STEP_TRIES),
        "pairs": len(pairs) * len(pictures[:PAIR_SAMPLES]),
    }
    made: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
        "loss": (_ascending(loss), ("singles",)),
        "hessian": (_ascending(hessian), ("traces",)),
        "conditional (screen)": (dependency_order(loss, screened), ("singles",)),
        "conditional (screen and pair tests)": (dependency_order(loss, tested), ("singles", "pairs")),
        "hessian+dependency (screen)": (dependency_order(hessian, screened), ("traces", "singles")),
        "hessian+dependency (screen and pair tests)": (dependency_order(hessian, tested), ("traces", "singles", "pairs")),
    }
    return {
        name: MeasuredOrder(
            tuple(decisions[index] for index in indices),
            sum(forwards[part] for part in parts),
            seconds["build"] + sum(seconds[part] for part in parts),
        )
        for name, (indices, parts) in made.items()
    }


class HeldOutLoss:
    """Mean divergence from the float network on held-out pictures, for sets of low layers; each set is run once."""

    def __init__(self, network: Network, pictures: Pictures) -> None:
        """Run the float network.

        Args:
            network: The network.
            pictures: The held-out pictures, (n, ...) float32.
        """
        self._network = network
        self._pictures = pictures
        self._float = self._logits(network.model)
        self._known: dict[tuple[frozenset[Decision], str], float] = {}

    def of_prefixes(self, orders: Sequence[Sequence[Decision]], ranges: Ranges, draw: str) -> list[list[float]]:
        """Return for each order the loss of every prefix, of one decision to all.

        Args:
            orders: The orders.
            ranges: Ranges of the activations.
            draw: Names the ranges; prefixes that round no activation are shared between draws.
        """
        wanted = [[self._key(order[: count + 1], draw) for count in range(len(order))] for order in orders]
        for key in dict.fromkeys(key for keys in wanted for key in keys):
            if key not in self._known:
                self._known[key] = self._loss(key[0], ranges)
        return [[self._known[key] for key in keys] for keys in wanted]

    @property
    def networks_run(self) -> int:
        """How many different sets of low layers were run."""
        return len(self._known)

    def _key(self, prefix: Sequence[Decision], draw: str) -> tuple[frozenset[Decision], str]:
        return frozenset(prefix), draw if prefix[0].precision is Precision.INT8 else ""

    def _loss(self, low: frozenset[Decision], ranges: Ranges) -> float:
        assignment = {decision.layer: decision.precision for decision in low}
        if Precision.INT8 in assignment.values():
            model = rewrite(self._network.model, self._network.layers, assignment, ranges, SCHEME)
        else:
            model = with_rounded_weights(self._network, assignment)
        return float(losses(KINDS, [self._float], [self._logits(model)]).mean())

    def _logits(self, model: onnx.ModelProto) -> Pictures:
        session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"])
        parts = [np.asarray(session.run(None, batch)[0]) for batch in _batches(self._network, self._pictures, BATCH)]
        return np.concatenate(parts)


def with_rounded_weights(network: Network, assignment: Mapping[str, Precision]) -> onnx.ModelProto:
    """Return the network with the weights of these layers after a round trip through their precision, all else in float."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer in network.layers:
        if layer.name in assignment and layer.weight is not None:
            weight = np.asarray(numpy_helper.to_array(tensors[layer.weight]), dtype=np.float32)
            rounded = fake_quantize_weight(weight, layer.weight_axis, bits=assignment[layer.name].bits)
            tensors[layer.weight].CopyFrom(numpy_helper.from_array(rounded, layer.weight))
    return model


def _hessian(
    reference: ReferenceModel, network: Network, precision: Precision, decisions: Sequence[Decision], traces: Sequence[HessianTrace]
) -> NDArray[np.float64]:
    """Return the second-order loss of each decision, (decisions,)."""
    if precision is Precision.INT8:
        return np.array([sum(trace.sensitivity for trace in traces if trace.layer == decision.layer) for decision in decisions])
    layers = {layer.name: layer for layer in network.layers}
    per_square = {trace.layer: 0.5 * trace.trace / trace.size for trace in traces if trace.site == "weight"}
    values = []
    for decision in decisions:
        weight = reference.weight(layers[decision.layer])
        rounded = fake_quantize_weight(weight, layers[decision.layer].weight_axis, bits=precision.bits)
        values.append(per_square[decision.layer] * float(np.sum(np.square(weight - rounded, dtype=np.float64))))
    return np.array(values)


def _batches(network: Network, pictures: Pictures, size: int) -> Iterator[dict[str, NDArray[np.generic]]]:
    return ({network.input: pictures[start : start + size]} for start in range(0, len(pictures), size))


def _ascending(cost: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argsort(cost, kind="stable"))


@contextmanager
def _counted(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    seconds[name] = time.process_time() - start
