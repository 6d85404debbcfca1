"""What orders are made of: the probes of one calibration draw, as a job runs them.

INT8 networks are explicit models, built as the search builds them and run in ONNX Runtime. 4-bit networks are **simulated**: the prepared
model with weights that went through a 4-bit grid (symmetric, per output channel) and back, activations in float, since the target has no
such kernel; the probes see the same. Their levels are the nearest, or those of GPTQ (``calibration.algorithms.gptq``).
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.accuracy.metrics import OutputKind
from calibration.algorithms.gptq import Levels
from calibration.algorithms.weight_rounding import gptq_levels
from calibration.graph.layers import Layer, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.number_formats.weight_scales import weight_step
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod
from calibration.sensitivity.hessian_trace import measure_traces
from calibration.sensitivity.interactions import dependency_matrix, measure_pairs, pairs_to_test, sharing_pairs
from calibration.sensitivity.layer_losses import measure_layer_losses
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.records import HessianTrace
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.config.config import ExactOn
from engine_builder.corrections.rounding_choice import FITTING_BATCH, FITTING_PICTURES
from engine_builder.engines.job_scheme import job_scheme
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.search.loss_model import LossModel
from engine_builder.search.rankings import dependency_order, likely_interactions
from engine_builder.stage_io.measuring import PAIR_SAMPLES
from engine_builder.stages.probe import HESSIAN_BATCH, HESSIAN_BATCHES, PAIRS_PER_LAYER_PRECISION

Ranges = Mapping[str, tuple[float, float]]
Pictures = NDArray[np.float32]
BATCH = 64
SCHEME = job_scheme(
    ExactOn.THIS_MACHINE, OrtCpuBackend().capabilities
)  # as this processor's kernels need it: the orders' engines run on it
KINDS = (OutputKind.LOGITS,)
STEP_TRIES = 3  # forwards that settle a finite-difference step, at the least


class Kind(enum.StrEnum):
    """How quantized layers are quantized."""

    INT8 = "int8"
    INT4 = "int4"
    INT4_GPTQ = "int4, second order"

    @property
    def precision(self) -> Precision:
        """Of the quantized layers."""
        return Precision.INT8 if self is Kind.INT8 else Precision.INT4


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A prepared network with one input of pictures and one output of logits."""

    name: str
    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    input: str

    def layer_precisions(self, precision: Precision) -> tuple[LayerPrecision, ...]:
        """Return every layer that the precision applies to, in graph order: at 4 bits only those with a weight."""
        return tuple(
            LayerPrecision(layer.name, precision) for layer in self.layers if precision is Precision.INT8 or layer.weight is not None
        )

    def batches(self, pictures: Pictures, size: int = BATCH) -> Iterator[dict[str, NDArray[np.generic]]]:
        """Return the pictures, (n, ...) float32, in batches of the input."""
        return ({self.input: pictures[start : start + size]} for start in range(0, len(pictures), size))


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """What one set of calibration pictures fixes of every quantized network."""

    name: str
    ranges: Ranges
    levels: Levels  # integer weights in the place of the nearest


@dataclass(frozen=True, slots=True)
class MeasuredOrder:
    """An order and what its measurements took.

    ``forwards`` counts one picture through the network from the probed layer on, at the least what was run.
    """

    layer_precisions: tuple[LayerPrecision, ...]
    forwards: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What the probes of one draw found."""

    orders: Mapping[str, MeasuredOrder]  # every guided order by name
    losses: LossModel  # with the pair tests


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


def measured_draw(network: Network, kind: Kind, name: str, pictures: Pictures, scratch: Path) -> Draw:
    """Return the min-max range of every tensor on the pictures, and the integer weights that GPTQ finds on them.

    Args:
        network: The network.
        kind: Whether weights are rounded by GPTQ.
        name: Of the draw.
        pictures: (n, ...) float32.
        scratch: A folder.
    """
    path = scratch / f"{network.name}.onnx"
    onnx.save_model(network.model, path)
    table = collect_ranges(path, network.layers, network.batches(pictures), method=RangeMethod.MINMAX)
    ranges = ranges_of_moved_tensors(network.model, table.ranges)
    levels: Levels = {}
    if kind is Kind.INT4_GPTQ:
        fitted = network.batches(pictures[:FITTING_PICTURES], FITTING_BATCH)
        levels = gptq_levels(network.model, network.layers, network.layer_precisions(kind.precision), SCHEME, fitted, ())
    return Draw(name, ranges, levels)


def measured_orders(network: Network, precision: Precision, draw: Draw, pictures: Pictures) -> Measured:
    """Return every guided order as one calibration draw gives it, with the sample counts of a job.

    Args:
        network: The network.
        precision: INT8 or INT4.
        draw: Ranges and weights of the same draw.
        pictures: The draw, (n, ...) float32.
    """
    layer_precisions = network.layer_precisions(precision)
    seconds: dict[str, float] = {}
    with _counted(seconds, "build"):
        reference = ReferenceModel(network.model, network.layers, draw.ranges, SCHEME, levels=draw.levels)
    with _counted(seconds, "layer_losses"):
        layer_losses = measure_layer_losses(reference, KINDS, layer_precisions, network.batches(pictures))
    with _counted(seconds, "traces"):
        probes = list(network.batches(pictures[: HESSIAN_BATCHES * HESSIAN_BATCH], HESSIAN_BATCH))
        traces = measure_traces(reference, KINDS, SCHEME, draw.ranges, probes, seed=0)
    pairs = pairs_to_test(layer_losses, network.layers, SCHEME, PAIRS_PER_LAYER_PRECISION * len(layer_precisions))
    with _counted(seconds, "pairs"):
        alone = {layer_precision: layer_losses.loss[:PAIR_SAMPLES, index] for index, layer_precision in enumerate(layer_precisions)}
        tests = measure_pairs(reference, KINDS, network.layers, pairs, list(network.batches(pictures[:PAIR_SAMPLES])), alone)
    loss = layer_losses.loss.mean(axis=0)
    hessian = _hessian(reference, network, layer_precisions, traces)
    shares = sharing_pairs(layer_precisions, network.layers, SCHEME)
    screened, tested = dependency_matrix(layer_losses, (), shares), dependency_matrix(layer_losses, tests, shares)
    likely = likely_interactions(tested, loss)
    forwards = {
        "layer_losses": layer_losses.loss.size,
        "traces": len(traces) * HESSIAN_BATCH * (len(probes) + STEP_TRIES),
        "pairs": len(pairs) * len(pictures[:PAIR_SAMPLES]),
    }
    made: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
        "loss": (_ascending(loss), ("layer_losses",)),
        "hessian": (_ascending(hessian), ("traces",)),
        "conditional (screen)": (dependency_order(loss, screened, loss), ("layer_losses",)),
        "conditional (screen and pair tests)": (dependency_order(loss, tested, loss), ("layer_losses", "pairs")),
        "hessian+dependency (screen)": (dependency_order(hessian, screened, loss), ("traces", "layer_losses")),
        "hessian+dependency (screen and pair tests)": (dependency_order(hessian, tested, loss), ("traces", "layer_losses", "pairs")),
    }
    orders = {
        name: MeasuredOrder(
            tuple(layer_precisions[index] for index in indices),
            sum(forwards[part] for part in parts),
            seconds["build"] + sum(seconds[part] for part in parts),
        )
        for name, (indices, parts) in made.items()
    }
    model = LossModel(layer_precisions, loss, layer_losses.loss_covariance, likely.mean, likely.error, likely.common_error)
    return Measured(orders, model)


def with_rounded_weights(network: Network, assignment: Mapping[str, Precision], levels: Levels | None = None) -> onnx.ModelProto:
    """Return the network with the weights of these layers after a round trip through their precision, all else in float.

    Args:
        network: The network.
        assignment: An integer precision for each quantized layer.
        levels: Integer weights in the place of the nearest.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer in network.layers:
        if layer.name in assignment and layer.weight is not None:
            precision = assignment[layer.name]
            weight = np.asarray(numpy_helper.to_array(tensors[layer.weight]), dtype=np.float32)
            step = weight_step(weight, layer, precision, SCHEME)
            top = 2 ** (precision.bits - 1) - 1
            known = (levels or {}).get((layer.name, precision))
            whole = np.clip(np.round(weight / step), -top, top) if known is None else known
            tensors[layer.weight].CopyFrom(numpy_helper.from_array(np.asarray(whole * step, dtype=np.float32), layer.weight))
    return model


def _hessian(
    reference: ReferenceModel, network: Network, layer_precisions: Sequence[LayerPrecision], traces: Sequence[HessianTrace]
) -> NDArray[np.float64]:
    """Return the second-order loss of each layer precision, (layer precisions,)."""
    layers = {layer.name: layer for layer in network.layers}
    per_square = {trace.layer: 0.5 * trace.trace / trace.size for trace in traces if trace.site == "weight"}
    values = []
    for layer_precision in layer_precisions:
        if layer_precision.precision is Precision.INT8:
            values.append(sum(trace.sensitivity for trace in traces if trace.layer == layer_precision.layer))
        else:
            weight = reference.weight(layers[layer_precision.layer])
            rounded = reference.rounded_weight(layers[layer_precision.layer], layer_precision.precision)
            values.append(per_square[layer_precision.layer] * float(np.sum(np.square(weight - rounded, dtype=np.float64))))
    return np.array(values)


def _ascending(cost: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argsort(cost, kind="stable"))


@contextmanager
def _counted(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    seconds[name] = time.process_time() - start
