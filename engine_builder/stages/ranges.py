"""The stage ``ranges``: the lowest and highest value of every tensor that a layer may round, and what each layer can take."""

from __future__ import annotations

from dataclasses import replace

from calibration.data.dataset import load_saved
from calibration.onnx_model.model_io import read_model
from calibration.ranges.collection import collect_ranges
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.engines.eligible_layers import RANGE_BATCH, eligible_precisions
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.records.inspection import PreparedModel
from engine_builder.stage_io.measuring import RangesRequest, RangesResult
from engine_builder.workspace.workspace import StageContext


def ranges(request: RangesRequest, context: StageContext) -> RangesResult:
    """Return the range table, and the precisions that each layer can take with it."""
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
    dialect = backend_for(request.target, request.gpu, table=targets_of(context)).capabilities.dialect
    eligible = eligible_precisions(model, prepared, request.precisions, table, dialect)
    return RangesResult(workspace.write_value("ranges.json", table), eligible)
