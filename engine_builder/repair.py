"""The stage ``repair``: smooths the inputs of layers where that was measured to lower the loss, and prepares bias correction.

A smoothing is fitted to some of the calibration samples and kept only if, on others, the layers that read the tensor lose less with it
than without by two standard errors: it is paid for with a multiplication in every engine, and a gain within the noise is not worth that.
What is kept gets its range from all samples, as every tensor does.

Biases are corrected for each engine by itself (``corrected``); what that is measured against is the same for all and measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.bias_correction import bias_sites, mean_outputs
from calibration.codec import json_from_value
from calibration.dataset import CalibrationSet, load_saved
from calibration.layers import Layer
from calibration.model import read_model
from calibration.parallel import processors
from calibration.precision import Precision
from calibration.reference import ReferenceModel
from calibration.singles import Decision, measure_singles
from calibration.smoothing import Smoothing, Spans, channel_spans, fit_smoothings, smoothable, with_range
from engine_builder.backends import backend_for
from engine_builder.backends.ort_cpu import OrtCpuBackend
from engine_builder.config import config_from_json
from engine_builder.evaluate import run_all
from engine_builder.inspection import Inspection, read_inspection
from engine_builder.outputs import ComparedOutputs
from engine_builder.probing import RANGE_BATCH, low_precisions, read_ranges
from engine_builder.repair_table import CorrectionData, Repair, RepairKind, RepairTable
from engine_builder.workspace import StageContext

HELD_OUT_SHARE = 0.25  # of the calibration samples, which the repairs are not fitted to
MOST_HELD_OUT = 48
CORRECTION_SAMPLES = 16  # whose activations are alive at once; their positions are averaged over too
STANDARD_ERRORS = 2.0  # by which a repair must lower the loss


def repair(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Return ``repairs``, the file of the repair table, and ``named``, the files that it names in its turn.

    Args:
        request: ``inspection``, ``ranges``, ``able`` and ``config``.
        context: Where files go.
    """
    found = read_inspection(request, context)
    config = config_from_json(request["config"])
    samples = load_saved(context.workspace.path(found.calibration))
    model = read_model(context.workspace.path(found.prepared))
    able = cast(Mapping[str, Sequence[str]], request["able"])
    layers = smoothable(model, [layer for layer in found.layers if Precision.INT8 in able.get(layer.name, ())])
    fitted, held_out = split(samples.samples, found.batch if found.is_batch_fixed else 1, config.search.seed)
    table = RepairTable()
    if len(held_out):
        table = RepairTable(correction=_correction_data(model, found, samples, fitted, held_out, context))
    if layers and len(held_out) and Precision.INT8 in low_precisions(config):
        spans, other = (_spans(model, layers, samples.take(indices), found) for indices in (fitted, held_out))
        context.progress(0.2, "channel ranges measured")
        smoothings = fit_smoothings(model, layers, spans)
        scheme = backend_for(config.target, config.gpu).capabilities.scheme
        ranges = read_ranges(request, context).ranges
        losses = []
        for candidates in ((), smoothings):
            reference = ReferenceModel(model, layers, ranges, scheme, candidates)
            decisions = [Decision(layer.name, Precision.INT8) for layer in layers]
            batches = samples.take(held_out).batches(found.batch)
            losses.append(measure_singles(reference, found.kinds, decisions, batches, weights=found.weights, workers=processors()).loss)
            context.progress(1.0 if candidates else 0.6, f"{len(layers)} layers with{'' if candidates else 'out'} smoothing")
        tried = _compared(layers, smoothings, *losses)
        kept = tuple(smoothing for smoothing, entry in zip(smoothings, tried, strict=True) if entry.kept)
        table = RepairTable(tuple(with_range(smoothing, _joined(spans, other)) for smoothing in kept), tried, table.correction)
    repairs = context.workspace.write_json("repairs.json", json_from_value(table))
    named = (table.correction.means, table.correction.reference) if table.correction is not None else ()
    return {"repairs": json_from_value(repairs), "named": json_from_value(named)}


def split(samples: int, batch: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sorted indices of the samples to fit repairs to and of those to judge them on; the latter empty where there are too few.

    Args:
        samples: Calibration samples.
        batch: Both counts are multiples of this; a rest is left out.
        seed: Of the permutation.
    """
    mixed = np.random.default_rng([seed, samples, 1]).permutation(samples).astype(np.int64)
    held_out = min(max(round(samples * HELD_OUT_SHARE / batch), 2 if batch == 1 else 1), MOST_HELD_OUT // batch or 1) * batch
    fitted = (samples - held_out) // batch * batch
    if fitted < held_out:
        return mixed, mixed[:0]
    return np.sort(mixed[held_out : held_out + fitted]), np.sort(mixed[:held_out])


def _correction_data(
    model: onnx.ModelProto,
    found: Inspection,
    samples: CalibrationSet,
    fitted: NDArray[np.int64],
    held_out: NDArray[np.int64],
    context: StageContext,
) -> CorrectionData:
    """Run the float model on the samples that biases are corrected on, and on those that judge the corrections."""
    size = max(CORRECTION_SAMPLES // found.batch, 1) * found.batch if found.is_batch_fixed else CORRECTION_SAMPLES
    fitted = fitted[:size]
    batches = samples.take(fitted).batches(min(found.batch, len(fitted)))
    means = mean_outputs(model, bias_sites(model, found.layers), batches)
    runner = ComparedOutputs(OrtCpuBackend().open(context.workspace.path(found.prepared), threads=1), found.compared)
    try:
        reference = run_all(runner, samples.take(held_out), batch=found.batch, workers=processors())
    finally:
        runner.close()
    return CorrectionData(
        context.workspace.write_arrays("bias-means.npz", **means),
        tuple(map(int, fitted)),
        context.workspace.write_arrays("repair-reference.npz", **{str(index): array for index, array in enumerate(reference)}),
        tuple(map(int, held_out)),
    )


def _spans(model: onnx.ModelProto, layers: Sequence[Layer], samples: CalibrationSet, found: Inspection) -> Spans:
    return channel_spans(model, layers, samples.batches(found.batch if found.is_batch_fixed else min(found.batch, RANGE_BATCH)))


def _joined(first: Spans, second: Spans) -> Spans:
    return {name: (np.minimum(low, second[name][0]), np.maximum(high, second[name][1])) for name, (low, high) in first.items()}


def _compared(
    layers: Sequence[Layer], smoothings: Sequence[Smoothing], before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[Repair, ...]:
    """Return what each smoothing is worth.

    Args:
        layers: The layers probed.
        smoothings: Each for some of the layers.
        before: (samples, layers), the loss of each layer alone without its smoothing.
        after: The same with it.
    """
    place = {layer.name: index for index, layer in enumerate(layers)}
    tried = []
    for smoothing in smoothings:
        columns = [place[name] for name in smoothing.layers]
        plain, smoothed = before[:, columns].sum(axis=1), after[:, columns].sum(axis=1)
        gain = plain - smoothed
        error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float(abs(gain[0]))
        kept = bool(gain.mean() > STANDARD_ERRORS * error)
        tried.append(Repair(RepairKind.SMOOTHING, smoothing.layers, float(plain.mean()), float(smoothed.mean()), error, len(gain), kept))
    return tuple(tried)
