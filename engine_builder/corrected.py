"""Builds the engine of an assignment with its biases corrected, where that lowers its loss.

The corrections are measured on some of the calibration samples with everything before each layer as it is in the engine, and kept only if
the engine with them loses less on others than the one without.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.bias_correction import bias_sites, corrections
from calibration.codec import value_from_json
from calibration.dataset import load_saved
from calibration.losses import losses
from calibration.model import read_model, save_model
from calibration.precision import Precision
from calibration.range_table import RangeTable
from engine_builder.backends.base import Backend
from engine_builder.config import config_from_json
from engine_builder.evaluate import run_all
from engine_builder.inspection import Inspection
from engine_builder.outputs import ComparedOutputs
from engine_builder.qdq.biases import with_corrected_biases
from engine_builder.qdq.rewrite import rewrite
from engine_builder.repair_table import CorrectionData, Repair, RepairKind, read_repairs
from engine_builder.workspace import FileRef, StageContext

Floats = NDArray[np.float32]


def build(
    found: Inspection,
    request: Mapping[str, object],
    low: Mapping[str, Precision],
    backend: Backend,
    context: StageContext,
    corrected: FileRef | None = None,
) -> tuple[Path, int]:
    """Return the engine of an assignment in the scratch folder, and its size in bytes; the explicit model lies beside it.

    Args:
        found: The job's inspection.
        request: ``ranges`` and, where there are any, ``repairs``.
        low: Precision of each low layer.
        backend: Of the target.
        context: Where the engine goes.
        corrected: The corrections that ``build_corrected`` kept.
    """
    table = value_from_json(RangeTable, context.workspace.read_json(value_from_json(FileRef, request["ranges"])))
    model = read_model(context.workspace.path(found.prepared))
    if corrected is not None:
        shifts = cast("Mapping[str, Floats]", context.workspace.read_arrays(corrected))
        model = with_corrected_biases(model, bias_sites(model, found.layers), shifts)
    explicit = rewrite(model, found.layers, low, table.ranges, backend.capabilities.scheme, read_repairs(request, context).smoothings)
    save_model(explicit, context.scratch / EXPLICIT_NAME)
    engine = backend.build(context.scratch / EXPLICIT_NAME, context.scratch / ENGINE_NAME)
    return engine.path, engine.size_bytes


def build_corrected(
    found: Inspection, request: Mapping[str, object], low: Mapping[str, Precision], backend: Backend, context: StageContext, name: str
) -> tuple[Path, int, Repair | None, FileRef | None]:
    """Return the better engine of an assignment, with corrected biases or without, and its size in bytes.

    Also what the correction was worth, None where there was nothing to correct, and the corrections, None where they were not kept.

    Args:
        found: The job's inspection.
        request: As for ``build``.
        low: Precision of each low layer.
        backend: Of the target.
        context: Where files go.
        name: Of the file of corrections.
    """
    path, size = build(found, request, low, backend, context)
    data = read_repairs(request, context).correction
    sites = [site for site in bias_sites(read_model(context.workspace.path(found.prepared)), found.layers) if site.layer in low]
    if data is None or not sites:
        return path, size, None, None
    samples = load_saved(context.workspace.path(found.calibration))
    means = cast("Mapping[str, NDArray[np.float64]]", context.workspace.read_arrays(data.means))
    batches = samples.take(np.array(data.fitted, dtype=np.int64)).batches(min(found.batch, len(data.fitted)))
    shifts = corrections(onnx.load(context.scratch / EXPLICIT_NAME), sites, means, batches)
    before = _loss(path, data, found, request, backend, context)
    ref = context.workspace.write_arrays(name, **shifts)
    path, size = build(found, request, low, backend, context, ref)
    after = _loss(path, data, found, request, backend, context)
    gain = before - after
    kept = bool(gain.mean() > 0.0)
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float(abs(gain[0]))
    where = tuple(site.layer for site in sites)
    repair = Repair(RepairKind.BIAS_CORRECTION, where, float(before.mean()), float(after.mean()), error, len(gain), kept)
    if kept:
        return path, size, repair, ref
    path, size = build(found, request, low, backend, context)
    return path, size, repair, None


def _loss(
    engine: Path, data: CorrectionData, found: Inspection, request: Mapping[str, object], backend: Backend, context: StageContext
) -> NDArray[np.float64]:
    """Return an engine's loss on each calibration sample that nothing was fitted to, (samples,)."""
    samples = load_saved(context.workspace.path(found.calibration)).take(np.array(data.held_out, dtype=np.int64))
    arrays = context.workspace.read_arrays(data.reference)
    reference = tuple(arrays[str(index)] for index in range(len(arrays)))
    runner = ComparedOutputs(backend.open(engine, threads=config_from_json(request["config"]).threads), found.compared)
    try:
        return losses(found.compared_kinds, reference, run_all(runner, samples, batch=found.batch))
    finally:
        runner.close()


EXPLICIT_NAME = "model.explicit.onnx"
ENGINE_NAME = "engine.onnx"
