"""The stages that measure the float model: ``ranges``, ``sensitivity``, ``hessian``, ``dependency`` and ``orders``.

Sensitivity is cut by samples: each call probes every decision on its share and leaves the per-sample losses and Gram sums in a file, so
that a kill costs one share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from calibration.codec import json_from_value, value_from_json
from calibration.data.dataset import CalibrationSet, load_saved
from calibration.number_formats.layer_precision import Decision
from calibration.onnx_model.model_io import read_model
from calibration.process.worker_threads import processors
from calibration.ranges.collection import collect_ranges
from calibration.sensitivity.hessian_trace import HessianTrace, measure_traces
from calibration.sensitivity.interactions import PairTest, dependency_matrix, measure_pairs, pairs_to_test
from calibration.sensitivity.layer_losses import Singles, joined, measure_singles
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.ranking import forwards_of_probes, sensitivity_table
from engine_builder.backends.base import Capabilities
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.config.config import Config, config_from_json
from engine_builder.engines.eligible_layers import RANGE_BATCH, eligible_precisions, low_precisions, wanted_decisions
from engine_builder.evaluation.loss_budget import allowed_loss
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.records.corrections import read_levels, read_ranges, read_repairs
from engine_builder.records.inspection import Inspection, read_inspection
from engine_builder.search.rankings import orders_from
from engine_builder.workspace.workspace import FileRef, StageContext

HESSIAN_BATCHES = 4  # most probes of a tensor, each on samples of its own
HESSIAN_BATCH = 8
PAIR_SAMPLES = 64
PAIRS_PER_DECISION = 2


def ranges(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return the range table: lowest and highest value of every tensor that a layer may round; and ``able``, what each layer may take.

    ``able`` holds the low precisions of each layer that has any, by name, in the target's order.
    """
    found, config, samples = _basics(request, context)
    path = context.workspace.path(found.prepared)

    def report(done: int) -> None:
        context.progress(done / samples.samples, f"{done} of {samples.samples} samples")

    batches = samples.batches(found.batch if found.is_batch_fixed else min(found.batch, RANGE_BATCH))
    symmetric, method = found.scheme.symmetric_activations, config.calibration.method
    table = collect_ranges(path, found.layers, batches, method=method, symmetric=symmetric, axes=found.axes, on_batch=report)
    model = read_model(path)
    moved = ranges_of_moved_tensors(model, table.ranges)
    table = replace(table, ranges=moved)
    able = eligible_precisions(model, found, config, table, _capabilities(config, context))
    return {"ranges": json_from_value(context.workspace.write_json("ranges.json", json_from_value(table))), "able": able}


def sensitivity(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Probe every decision on the calibration samples [start, stop) of the request."""
    found, _, samples = _basics(request, context)
    start, stop = cast(int, request["start"]), cast(int, request["stop"])
    share = samples.take(np.arange(start, stop))
    reference = _reference(found, request, context)

    def report(done: int) -> None:
        context.progress(done / share.samples, f"{len(wanted)} decisions on {done} of {share.samples} samples")

    wanted = wanted_decisions(found, request)
    singles = measure_singles(
        reference, found.probed.kinds, wanted, share.batches(found.batch), weights=found.weights, workers=processors(), on_batch=report
    )
    name = f"singles-{start}-{stop}.npz"
    arrays = {"loss": singles.loss, "gram_sum": singles.gram_sum, "gram_square_sum": singles.gram_square_sum}
    return {"singles": json_from_value(context.workspace.write_arrays(name, **arrays)), "provider": reference.provider.value}


def hessian(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Measure the Hessian traces of every layer, on a few samples a probe: more probes where the budget's boundary depends on them."""
    found, config, samples = _basics(request, context)
    reference = _reference(found, request, context)
    size = found.batch if found.is_batch_fixed else max(1, min(HESSIAN_BATCH, samples.samples // HESSIAN_BATCHES))
    batches = [samples.take(np.arange(i * size, (i + 1) * size) % samples.samples).feeds() for i in range(HESSIAN_BATCHES)]
    traces = measure_traces(
        reference,
        found.probed.kinds,
        found.scheme,
        read_ranges(request, context).ranges,
        batches,
        seed=config.search.seed,
        most=found.batch,
        precisions=low_precisions(config, _capabilities(config, context)),
        able=cast(Mapping[str, Sequence[str]], request["able"]),
        weights=found.weights,
        allowed=allowed_loss(config.accuracy.budget, found.metric, [found.probed.kinds[found.compared[index]] for index in found.scored]),
        workers=processors(),
        on_batch=lambda done: context.progress(done / HESSIAN_BATCHES, f"Hessian probe {done} of {HESSIAN_BATCHES}"),
    )
    probes = max((trace.probes for trace in traces), default=0)
    return {
        "traces": json_from_value(traces),
        "samples": min(size * probes, samples.samples),
        "provider": reference.provider.value,
    }


def dependency(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Test the pairs that matter most exactly, on the first samples of the sensitivity probes."""
    found, _, samples = _basics(request, context)
    wanted = wanted_decisions(found, request)
    singles = _singles(request, wanted, context)
    pairs = pairs_to_test(singles, found.layers, found.scheme, PAIRS_PER_DECISION * len(wanted))
    count = min(max(PAIR_SAMPLES // found.batch, 1) * found.batch, singles.samples)
    share = samples.take(np.arange(count))
    batches = list(share.batches(found.batch))
    reference = _reference(found, request, context)
    tests = measure_pairs(
        reference,
        found.probed.kinds,
        found.layers,
        pairs,
        batches,
        {decision: singles.loss[:count, index] for index, decision in enumerate(wanted)},
        weights=found.weights,
        workers=processors(),
        on_batch=lambda done: context.progress(done / len(batches), f"{len(pairs)} pairs on {done} of {len(batches)} batches"),
    )
    return {"tests": json_from_value(tests), "provider": reference.provider.value}


def orders(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Put the measurements together: the sensitivity table, the dependency matrix and the orders."""
    found, config, _ = _basics(request, context)
    wanted = wanted_decisions(found, request)
    singles = _singles(request, wanted, context)
    traces = value_from_json(tuple[HessianTrace, ...], request["traces"])
    tests = value_from_json(tuple[PairTest, ...], request["tests"])
    forwards = forwards_of_probes(wanted, found.layers) * singles.samples
    table = sensitivity_table(singles, traces, hessian_samples=cast(int, request["hessian_samples"]), plain_forwards=forwards)
    matrix = dependency_matrix(singles, tests)
    made = orders_from(table, matrix, config.search.orders)
    return {
        "table": json_from_value(context.workspace.write_json("sensitivity.json", json_from_value(table))),
        "dependency": json_from_value(
            context.workspace.write_arrays(
                "dependency.npz",
                interaction=matrix.interaction,
                error=matrix.error,
                gram=singles.gram,
                gram_error=singles.gram_error,
                loss_covariance=singles.loss_covariance,
            )
        ),
        "orders": {name: json_from_value(order) for name, order in made.items()},
    }


def _basics(request: Mapping[str, object], context: StageContext) -> tuple[Inspection, Config, CalibrationSet]:
    found = read_inspection(request, context)
    return found, config_from_json(request["config"]), load_saved(context.workspace.path(found.calibration))


def _reference(found: Inspection, request: Mapping[str, object], context: StageContext) -> ReferenceModel:
    model = read_model(context.workspace.path(found.prepared))
    repairs = read_repairs(request, context)
    ranges = read_ranges(request, context).ranges
    levels = read_levels(repairs, context)
    outputs, axes = found.probed.names, found.probed.axes
    return ReferenceModel(model, found.layers, ranges, found.scheme, repairs.smoothings, levels=levels, axes=axes, outputs=outputs)


def _singles(request: Mapping[str, object], wanted: tuple[Decision, ...], context: StageContext) -> Singles:
    parts = []
    for ref in cast(Sequence[object], request["singles"]):
        arrays = context.workspace.read_arrays(value_from_json(FileRef, ref))
        parts.append(Singles(wanted, *(cast("NDArray[np.float64]", arrays[key]) for key in ("loss", "gram_sum", "gram_square_sum"))))
    return joined(parts)


def _capabilities(config: Config, context: StageContext) -> Capabilities:
    return backend_for(config.target, config.gpu, table=targets_of(context)).capabilities
