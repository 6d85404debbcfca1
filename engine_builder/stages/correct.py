"""The stage ``repair``: makes low layers less lossy where that was measured to help, each step with those before it in place.

Ranges other than min-max come first (``range_choice``), then smoothing, then the rounding of weights (``weight_rounding``).

A smoothing is fitted to some of the calibration samples and kept only if, on others, the layers that read the tensor lose less with it
than without by two standard errors: it is paid for with a multiplication in every engine, and a gain within the noise is not worth that.
What is kept gets its range from all samples, as every tensor does.

Biases are corrected for each engine by itself (``corrected``); what that is measured against is the same for all and measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.algorithms.bias_correction import bias_sites, mean_outputs
from calibration.algorithms.smooth_quant import Smoothing, Spans, channel_spans, fit_smoothings, smoothable, with_range
from calibration.codec import json_from_value
from calibration.data.dataset import CalibrationSet, load_saved
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision, Scheme
from calibration.onnx_model.model_io import read_model
from calibration.process.worker_threads import processors
from calibration.ranges.range_table import RangeMethod
from calibration.sensitivity.layer_losses import measure_singles
from calibration.sensitivity.perturbed_model import ReferenceModel
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.config.config import config_from_json
from engine_builder.corrections.acceptance import gain_of
from engine_builder.corrections.range_choice import choose_ranges
from engine_builder.corrections.rounding_choice import round_weights
from engine_builder.engines.eligible_layers import RANGE_BATCH, wanted_decisions
from engine_builder.evaluation.outputs import ComparedOutputs
from engine_builder.evaluation.run_samples import run_all
from engine_builder.records.corrections import CorrectionData, Repair, RepairKind, RepairTable, read_ranges, write_levels
from engine_builder.records.inspection import Inspection, read_inspection
from engine_builder.workspace.workspace import StageContext

HELD_OUT_SHARE = 0.25  # of the calibration samples, which the repairs are not fitted to
MOST_HELD_OUT = 48
CORRECTION_SAMPLES = 16  # whose activations are alive at once; their positions are averaged over too


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
    scheme = found.scheme
    wanted = wanted_decisions(found, request)
    fitted, held_out = split(samples.samples, found.batch if found.is_batch_fixed else 1, config.search.seed)
    table = RepairTable()
    if len(held_out):
        share = _Share(model, found, samples, fitted, held_out)
        table = RepairTable(correction=_correction_data(share, context))
        ranges = read_ranges(request, context).ranges
        rounding = [decision for decision in wanted if decision.precision.rounds_inputs]
        if config.calibration.method is RangeMethod.BEST and rounding:
            chosen, tried = choose_ranges(model, found, rounding, ranges, scheme, samples, fitted, held_out)
            table, ranges = replace(table, ranges=chosen, tried=tried), {**ranges, **chosen}
            context.progress(0.3, f"{len(tried)} ranges tried")
        smoothings, tried = _smoothings(share, [d for d in wanted if d.precision.multiplies_integers], ranges, scheme, context)
        table = replace(table, smoothings=smoothings, tried=(*table.tried, *tried))
        integers = [decision for decision in wanted if decision.precision in config.calibration.second_order]
        part = context.part(0.7, 1.0).progress
        levels, tried = round_weights(model, found, integers, ranges, scheme, smoothings, samples, fitted, held_out, progress=part)
        table = replace(table, levels=write_levels(levels, context) if levels else None, tried=(*table.tried, *tried))
        context.progress(1.0, f"{len(table.tried)} repairs tried")
    repairs = context.workspace.write_json("repairs.json", json_from_value(table))
    correction = (table.correction.means, table.correction.reference) if table.correction is not None else ()
    named = (*correction, *((table.levels,) if table.levels is not None else ()))
    return {"repairs": json_from_value(repairs), "named": json_from_value(named)}


@dataclass(frozen=True, slots=True)
class _Share:
    """A model and the calibration samples that its repairs are fitted to and judged on."""

    model: onnx.ModelProto
    found: Inspection
    samples: CalibrationSet
    fitted: NDArray[np.int64]
    held_out: NDArray[np.int64]


def _smoothings(
    share: _Share, wanted: Sequence[Decision], ranges: Mapping[str, tuple[float, float]], scheme: Scheme, context: StageContext
) -> tuple[tuple[Smoothing, ...], tuple[Repair, ...]]:
    """Return the smoothings that help layers in INT8, and all that were tried."""
    names = {decision.layer for decision in wanted}
    layers = smoothable(share.model, [layer for layer in share.found.layers if layer.name in names])
    if not layers:
        return (), ()
    spans, other = (_spans(share.model, layers, share.samples.take(part), share.found) for part in (share.fitted, share.held_out))
    context.progress(0.4, "channel ranges measured")
    smoothings = fit_smoothings(share.model, layers, spans)

    def loss(candidates: Sequence[Smoothing]) -> NDArray[np.float64]:
        reference = ReferenceModel(
            share.model, layers, ranges, scheme, candidates, axes=share.found.probed.axes, outputs=share.found.probed.names
        )
        batches = share.samples.take(share.held_out).batches(share.found.batch)
        probes = [Decision(layer.name, Precision.INT8) for layer in layers]
        found = measure_singles(
            reference, share.found.probed.kinds, probes, batches, weights=share.found.weights, workers=processors()
        ).loss
        context.progress(0.7 if candidates else 0.5, f"{len(layers)} layers with{'' if candidates else 'out'} smoothing")
        return found

    tried = _compared(layers, smoothings, loss(()), loss(smoothings))  # one float model in pieces at a time
    kept = tuple(smoothing for smoothing, entry in zip(smoothings, tried, strict=True) if entry.kept)
    return tuple(with_range(smoothing, _joined(spans, other)) for smoothing in kept), tried


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


def _correction_data(share: _Share, context: StageContext) -> CorrectionData:
    """Run the float model on the samples that biases are corrected on, and on those that judge the corrections."""
    found, samples, held_out = share.found, share.samples, share.held_out
    size = max(CORRECTION_SAMPLES // found.batch, 1) * found.batch if found.is_batch_fixed else CORRECTION_SAMPLES
    fitted = share.fitted[:size]
    batches = samples.take(fitted).batches(min(found.batch, len(fitted)))
    means = mean_outputs(share.model, bias_sites(share.model, found.layers), batches)
    runner = ComparedOutputs(OrtCpuBackend().open(context.workspace.path(found.prepared), threads=1), found.compared, found.axes)
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
    """Return spans that cover both; a tensor may be empty on all samples of one."""
    found = {**second, **first}
    for name in first.keys() & second.keys():
        found[name] = np.minimum(first[name][0], second[name][0]), np.maximum(first[name][1], second[name][1])
    return found


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
        gain = gain_of(plain, smoothed)
        tried.append(Repair(RepairKind.SMOOTHING, smoothing.layers, gain.before, gain.after, gain.error, gain.samples, gain.beyond_noise))
    return tuple(tried)
