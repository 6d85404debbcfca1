"""The stage ``ranges``: the lowest and highest value of every tensor that a layer may round, and what each layer can take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

from calibration.data.dataset import CalibrationSet, load_saved
from calibration.onnx_model.model_io import read_model
from calibration.ranges.collection import collect_ranges
from engine_builder.backends.onnxruntime.product_times import Shapes, Times, product_times
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.engines.eligible_layers import RANGE_BATCH, eligible_precisions
from engine_builder.engines.paying.paying_layers import paying_layers
from engine_builder.engines.paying.paying_precisions import Paying, paying_precisions
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.records.calibrated import EligiblePrecisions
from engine_builder.records.inspection import PreparedModel
from engine_builder.stage_io.measuring import RangesRequest, RangesResult
from engine_builder.workspace.workspace import StageContext

Measure = Callable[[Shapes], Times]


def ranges(request: RangesRequest, context: StageContext, *, measure: Measure | None = None) -> RangesResult:
    """Return the range table, and the precisions that each layer can take with it.

    Args:
        request: The model, its samples and the precisions.
        context: Where files go.
        measure: Times products; the machine's own times by default.
    """
    workspace = context.workspace
    prepared = workspace.read_value(PreparedModel, request.model)
    samples = load_saved(workspace.path(request.calibration))
    path = workspace.path(prepared.file)

    def report(done: int) -> None:
        context.progress(done / samples.samples, f"{done} of {samples.samples} samples")

    batches = samples.batches(prepared.batch if prepared.is_batch_fixed else min(prepared.batch, RANGE_BATCH))
    symmetric = prepared.scheme.symmetric_activations
    table = collect_ranges(path, prepared.layers, batches, method=request.method, symmetric=symmetric, axes=prepared.axes, on_batch=report)
    model = read_model(path)
    table = replace(table, ranges=ranges_of_moved_tensors(model, table.ranges))
    target = backend_for(request.target, request.gpu, table=targets_of(context)).capabilities
    eligible: EligiblePrecisions = eligible_precisions(model, prepared, request.precisions, table, target.dialect)
    slower: EligiblePrecisions = {}
    paying = Paying(eligible)
    if request.only_paying:
        expected = paying_layers(model, prepared.layers, eligible, _timed_shapes(samples, prepared, request.timed_batch), target)
        eligible, slower = expected.eligible, expected.left_out
        weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        times = measure or functools.partial(product_times, threads=request.threads)
        paying = paying_precisions(prepared.layers, weights, eligible, times, samples=request.timed_batch)
    return RangesResult(workspace.write_value("ranges.json", table), paying.eligible, paying.last_resorts, slower)


def _timed_shapes(samples: CalibrationSet, prepared: PreparedModel, batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input in a timed call; of those that count samples on another axis than the first as they are."""
    feeds = next(iter(samples.batches(1)))
    counted = {name: prepared.axes.inputs.get(name, 0) == 0 for name in feeds}
    return {name: ((batch, *array.shape[1:]) if counted[name] and array.ndim else array.shape) for name, array in feeds.items()}
