"""One assignment of one network: the explicit model, its plan, what each layer got, and how its outputs agree with fake quantization."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.plan_models import Network, Samples
from calibration.accuracy.metrics import OutputKind
from calibration.execution.onnxruntime_session import Array, Piece
from calibration.execution.partition import Graph
from calibration.graph.layers import LayerKind
from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from calibration.onnx_model.model_io import save_model
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod
from calibration.sensitivity.simulated_layers import quantized_layer, rounded_weight
from calibration.sensitivity.task_losses import losses
from engine_builder.backends.achieved_precision import AchievedPrecision, achieved_precisions
from engine_builder.backends.base import Runner
from engine_builder.backends.nvidia.roofline import predicted_latency
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.config.config import ShapeRange
from engine_builder.errors import BuildError
from engine_builder.qdq.checks.validator import validate_tensorrt
from engine_builder.qdq.rules.eligibility import Eligibility
from engine_builder.qdq.rules.legalize import legalize
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt

Ranges = Mapping[str, tuple[float, float]]
ONE_FORMAT = (Precision.FP16, Precision.INT8, Precision.FP8, Precision.INT4)
DRAWN = (Precision.FP32, *ONE_FORMAT)  # what random mixtures are made of; ONNX Runtime has no BF16 kernels to compare with
MIXED_SEEDS = (0, 1, 2)
CASES = (*(f"all {precision}" for precision in ONE_FORMAT), *(f"mixed {seed}" for seed in MIXED_SEEDS))
RUN_BATCH = 16


@dataclass(frozen=True, slots=True)
class Agreement:
    """Three models on the same real samples: the float one, its fake quantization, and the explicit model in FP16."""

    samples: int
    fake_kl: float  # mean KL divergence of the fake quantization from the float model
    explicit_kl: float  # of the explicit model from the float model
    between_kl: float  # of the explicit model from the fake quantization
    flips: float  # share of samples whose largest logit is another one in the explicit model than in the fake quantization
    flips_from_float: float  # share of samples whose largest logit is another one in the explicit model than in the float model


@dataclass(frozen=True, slots=True)
class PlanResult:
    """One assignment of one network, built."""

    network: str
    case: str
    asked: Mapping[str, int]  # layers by precision, as legalized; sums apart, which have no kernel of their own
    legalized: Mapping[str, int]  # layers that were left at FP16 together with another, by reason
    differences: tuple[AchievedPrecision, ...]
    plan_bytes: int
    build_seconds: float
    predicted_ms: float
    agreement: Agreement | None

    @property
    def layers(self) -> int:
        """How many layers were asked for something."""
        return sum(self.asked.values())


def ranges_of(network: Network) -> Ranges:
    """Return the ranges of all tensors on the calibration samples, lowest and highest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "prepared.onnx")
        save_model(network.model, path)
        table = collect_ranges(path, network.layers, batches(network.calibration), method=RangeMethod.MINMAX)
    softmax = {name: (0.0, 1.0) for node in network.model.graph.node if node.op_type == "Softmax" for name in node.output}
    return ranges_of_moved_tensors(network.model, {**table.ranges, **softmax})


def assignment_of(network: Network, case: str) -> dict[str, Precision] | None:
    """Return the precision of each layer that is not left at FP16, None where no layer may take the case's precision."""
    eligibility = Eligibility(network.model, network.layers)
    kind, word = case.split()
    if kind == "all":
        precision = Precision(word)
        found = {layer.name: precision for layer in network.layers if eligibility.can_take(layer, precision)}
        return found or None
    rng = np.random.default_rng([int(word), len(network.layers)])
    offered = {layer.name: [p for p in DRAWN if eligibility.can_take(layer, p)] for layer in network.layers}
    return {name: precisions[int(rng.integers(len(precisions)))] for name, precisions in offered.items()}


def run_case(network: Network, case: str, ranges: Ranges, backend: TensorRtRtxBackend) -> PlanResult | str:
    """Return what came of one assignment, or why it does not exist."""
    assignment = assignment_of(network, case)
    if assignment is None:
        return "no layer of this network may take it"
    legalized = legalize(network.model, network.layers, assignment)
    explicit = rewrite_tensorrt(network.model, network.layers, assignment, ranges)
    validate_tensorrt(explicit, compute_capability=backend.gpu.compute_capability)
    sizes = {name: (network.batch, *array.shape[1:]) for name, array in network.calibration.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.explicit.onnx")
        save_model(explicit, path)
        start = time.perf_counter()
        try:
            engine = backend.build(path, Path(folder, "engine.plan"), shapes={name: ShapeRange(s, s, s) for name, s in sizes.items()})
        except BuildError as error:
            return f"the build failed: {error.detail}"
        seconds = time.perf_counter() - start
        agreement = None
        if network.validation is not None:
            simulated = backend.open(engine.path, threads=2)
            agreement = agreement_of(network, legalized.precisions, ranges, simulated, network.validation)
        predicted = predicted_latency(engine.kernels_at_opt, backend.gpu).ms
    asked = {layer.name: legalized.precisions[layer.name] for layer in network.layers if layer.kind is not LayerKind.RESIDUAL_ADD}
    rows = achieved_precisions(engine.kernels, asked)
    return PlanResult(
        network=network.name,
        case=case,
        asked=dict(Counter(precision.value for precision in asked.values())),
        legalized=dict(Counter(change.reason for change in legalized.changes)),
        differences=tuple(row for row in rows if row.reason is not None),
        plan_bytes=engine.size_bytes,
        build_seconds=seconds,
        predicted_ms=predicted,
        agreement=agreement,
    )


def agreement_of(network: Network, precisions: Mapping[str, Precision], ranges: Ranges, simulated: Runner, samples: Samples) -> Agreement:
    """Return how the explicit model, opened as a job opens it, agrees with fake quantization on the samples."""
    written = np.concatenate([np.asarray(simulated.run(batch)[0], dtype=np.float32) for batch in batches(samples)])
    plain = fake_quantized(network, {}, ranges, samples)
    fake = fake_quantized(network, precisions, ranges, samples)

    def kl(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        return float(np.mean(losses((OutputKind.LOGITS,), (one,), (other,))))

    def flips(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        return float(np.mean(one.argmax(axis=-1) != other.argmax(axis=-1)))

    return Agreement(len(plain), kl(plain, fake), kl(plain, written), kl(fake, written), flips(fake, written), flips(plain, written))


def fake_quantized(network: Network, precisions: Mapping[str, Precision], ranges: Ranges, samples: Samples) -> NDArray[np.float32]:
    """Return the first output, (samples, classes), of the prepared model with each layer as its probe has it; float32 between layers.

    Args:
        network: Which one.
        precisions: Of the layers that are not computed in float32.
        ranges: Of every tensor.
        samples: What to run it on.
    """
    graph = Graph(network.model, network.layers)
    fed: dict[str, Array] = dict(graph.matrices)
    steps: list[tuple[Piece, tuple[str, ...], Mapping[str, Array]]] = []
    at = 0
    for unit in (*graph.units, None):
        stop = len(graph.nodes) if unit is None else unit.start
        between = graph.piece_outputs(at, stop)
        if stop > at and between:
            steps.append((Piece(graph.piece(at, stop, outputs=between)), between, {}))
        if unit is None:
            break
        precision = precisions.get(unit.layer.name, Precision.FP32)
        weight = unit.layer.weight
        if precision is Precision.FP32:
            piece = Piece(graph.piece(unit.start, unit.stop, outputs=[unit.layer.output]))
            steps.append((piece, (unit.layer.output,), {}))
        else:
            piece = Piece(quantized_layer(graph, unit, precision, ranges, TENSORRT_SCHEME))
            own: dict[str, Array] = {}
            if weight is not None and weight in piece.inputs:
                own[weight] = rounded_weight(graph, unit.layer, precision, None, TENSORRT_SCHEME)
            steps.append((piece, (unit.layer.output,), own))
        at = unit.stop
    found = []
    for batch in batches(samples):
        tensors: dict[str, Array] = {**fed, **batch}
        for piece, names, weights in steps:
            tensors.update(zip(names, piece.run({**tensors, **weights}).values(), strict=True))
        found.append(np.asarray(tensors[graph.outputs[0]], dtype=np.float32))
    return np.concatenate(found)


def batches(samples: Samples) -> Sequence[dict[str, Array]]:
    """Return the samples a few at a time, the last ones fewer."""
    count = len(next(iter(samples.values())))
    return [{name: array[start : start + RUN_BATCH] for name, array in samples.items()} for start in range(0, count, RUN_BATCH)]
