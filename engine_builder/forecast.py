"""The stage ``forecast``: fits the time model to the trials so far and returns ladders of assignments worth bisecting.

The first call, after the baseline and the engine with every layer low, profiles both and returns the frontier and the prefixes of each
order. The second, with every trial known, returns the frontier of the refitted models: give-backs that did not pay and swaps at the
boundary come out of it by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.codec import json_from_value, value_from_json
from calibration.dataset import load_saved
from calibration.layers import Layer, concrete_shapes
from calibration.model import read_model
from calibration.precision import Precision, Scheme
from calibration.sensitivity import SensitivityTable
from calibration.singles import Decision
from engine_builder.backends import backend_for
from engine_builder.config import Config, config_from_json
from engine_builder.corrected import build
from engine_builder.inspection import Inspection, read_inspection
from engine_builder.qdq.placement import MOVING_OPS
from engine_builder.search.frontier import frontier, predicted_loss
from engine_builder.search.time_model import Flow, Timed, TimeModel, fit
from engine_builder.search.trial import Trial
from engine_builder.trials import timing_feeds
from engine_builder.workspace import FileRef, StageContext

Kernels = dict[str, tuple[float, float]]  # layer -> its kernel's milliseconds in the baseline engine and with every layer low


def forecast(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return ``ladders`` and, for the report and the next call, ``kernels_ms`` and the fitted ``time_model``.

    Args:
        request: ``trials`` so far, ``orders``, ``table``, ``dependency`` and, from the second call on, ``kernels_ms``.
        context: Where profiles are written.
    """
    found = read_inspection(request, context)
    config = config_from_json(request["config"])
    trials = value_from_json(tuple[Trial, ...], request["trials"])
    lowest = next(trial for trial in trials if trial.order == "all_low")
    known = request.get("kernels_ms")
    kernels = _profiled(found, config, lowest, request, context) if known is None else value_from_json(Kernels, known)
    flows = _flows(found, config, context)
    timed = [Timed(frozenset(trial.precisions), trial.latency.ratio) for trial in trials if trial.latency is not None]
    baseline_ms = next(trial.latency.median_ms for trial in trials if trial.latency is not None)
    times = fit(baseline_ms, kernels, flows, timed)
    precision = dict(lowest.precisions)
    table = value_from_json(SensitivityTable, context.workspace.read_json(value_from_json(FileRef, request["table"])))
    loss, interaction = _losses(table, precision, request, context)
    points = frontier(tuple(precision), loss, interaction, times)
    tried = {frozenset(trial.precisions) for trial in trials}
    ladders: list[dict[str, object]] = [
        {
            "name": "frontier" if known is None else "refine",
            "rungs": [{layer: precision[layer].value for layer in sorted(point.low)} for point in points],
            "ratios": [point.ratio for point in points],
        }
    ]
    if known is None:
        ladders += [_prefixes(name, value_from_json(tuple[Decision, ...], order), times) for name, order in _orders(request)]
    context.progress(1.0, f"{sum(point.low not in tried for point in points)} new assignments on the predicted frontier")
    return {
        "ladders": ladders,
        "kernels_ms": json_from_value(kernels),
        "time_model": {"conversion_ns": times.conversion_ms * 1e6, "overhead_ms": times.overhead_ms, "trials": len(timed)},
        "predicted": {
            trial.fingerprint: {
                "ratio": times.ratio(trial.precisions),
                "loss": predicted_loss([layer in trial.precisions for layer in precision], loss, interaction),
            }
            for trial in trials
        },
    }


def _orders(request: Mapping[str, object]) -> list[tuple[str, object]]:
    return list(cast(Mapping[str, object], request["orders"]).items())


def _prefixes(name: str, order: Sequence[Decision], times: TimeModel) -> dict[str, object]:
    rungs = [{decision.layer: decision.precision.value for decision in order[:count]} for count in range(1, len(order))]
    return {"name": name, "rungs": rungs, "ratios": [times.ratio(rung) for rung in rungs]}


def _losses(
    table: SensitivityTable, precision: Mapping[str, Precision], request: Mapping[str, object], context: StageContext
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the losses, (n,), and interactions, (n, n), of the layers in ``precision``, in its order."""
    place = {row.decision: index for index, row in enumerate(table.rows)}
    rows = [place[Decision(layer, kind)] for layer, kind in precision.items()]
    arrays = context.workspace.read_arrays(value_from_json(FileRef, request["dependency"]))
    interaction = np.asarray(arrays["interaction"], dtype=np.float64)
    return np.array([table.rows[index].loss for index in rows]), interaction[np.ix_(rows, rows)]


def _profiled(found: Inspection, config: Config, lowest: Trial, request: Mapping[str, object], context: StageContext) -> Kernels:
    """Return each layer's kernel time in both engines; a layer that the runtime fused into another has 0 in that engine."""
    backend = backend_for(config.target, config.gpu)
    feeds = timing_feeds(found, load_saved(context.workspace.path(found.validation)))
    baseline = context.workspace.path(value_from_json(FileRef, request["model"]))
    engine = build(found, request, lowest.precisions, backend, context, lowest.corrections)
    high = backend.kernel_times(baseline, feeds, threads=config.threads, scratch=context.scratch)
    low = backend.kernel_times(engine.path, feeds, threads=config.threads, scratch=context.scratch)
    return {layer.name: (_time_of(layer, high), _time_of(layer, low)) for layer in found.layers if layer.name in lowest.precisions}


def _time_of(layer: Layer, kernels: Mapping[str, float]) -> float:
    return sum(kernels.get(name, 0.0) for name in dict.fromkeys((*layer.nodes, layer.output)))


def _flows(found: Inspection, config: Config, context: StageContext) -> tuple[Flow, ...]:
    model = read_model(context.workspace.path(found.prepared))
    feeds = timing_feeds(found, load_saved(context.workspace.path(found.validation)))
    shapes = concrete_shapes(model, {name: array.shape for name, array in feeds.items()})
    sizes = {name: math.prod(size for size in shape if isinstance(size, int)) for name, shape in shapes.items()}
    return flows_between(model, found.layers, backend_for(config.target, config.gpu).capabilities.scheme, sizes)


def flows_between(model: onnx.ModelProto, layers: Sequence[Layer], scheme: Scheme, sizes: Mapping[str, int]) -> tuple[Flow, ...]:
    """Return the tensors that layers write or read; what only moves a tensor (Reshape, MaxPool, ...) counts as the tensor itself.

    Args:
        model: The prepared model.
        layers: Its layers.
        scheme: How the target quantizes.
        sizes: Elements of each tensor in one timed call.
    """
    moved = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in MOVING_OPS}

    def origin(name: str) -> str:
        while name in moved:
            name = moved[name]
        return name

    producer = {layer.output: layer.name for layer in layers if layer.op_type in scheme.quantized_outputs}
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for name in dict.fromkeys(origin(tensor) for tensor in layer.inputs):
            readers.setdefault(name, []).append(layer.name)
    inside = {node for layer in layers for node in layer.nodes}
    as_float = {origin(value.name) for value in model.graph.output}
    for node in model.graph.node:
        if node.name not in inside and node.op_type not in MOVING_OPS:
            as_float.update(origin(name) for name in node.input)
    names = dict.fromkeys((*readers, *producer))
    return tuple(Flow(producer.get(name), tuple(readers.get(name, ())), name in as_float, sizes.get(name, 0)) for name in names)
