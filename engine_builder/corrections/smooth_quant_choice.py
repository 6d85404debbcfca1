"""Smooths the inputs of layers with integer products where that lowers their loss.

A SmoothQuant scaling is fitted to some of the calibration samples and kept only if, on others, the layers that read the tensor lose less
with it than without by two standard errors: it is paid for with a multiplication in every engine, and a gain within the noise is not worth
that. The others are looked at in three parts: tensors whose layers lose next to nothing are not worth more than the first part, and those
of which the samples so far leave no doubt are not probed on the rest. What is kept gets its range from all samples, as every tensor does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.smooth_quant import SmoothQuantScaling, Spans, channel_spans, fit_smooth_quants, takes_smooth_quant, with_range
from calibration.data.dataset import SampleShare
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.process.worker_threads import processors
from calibration.sensitivity.layer_losses import measure_layer_losses
from calibration.sensitivity.perturbed_model import ReferenceModel
from engine_builder.corrections.acceptance import Gain, gain_of
from engine_builder.corrections.method import Bench, InUse, Progress
from engine_builder.records.corrections import Correction, CorrectionKind

SPAN_BATCH = 8
LOOKS = (8, 20)  # samples after which what is clear is decided
LEAST_SHARE = 0.005  # of the losses of all layers that may be smoothed, for a tensor to be worth it


def choose_smooth_quants(bench: Bench, in_use: InUse, progress: Progress) -> tuple[InUse, tuple[Correction, ...]]:
    """Smooth tensors where that helps the layers in INT8 that read them; a ``CorrectionMethod``."""
    model, prepared = bench.model, bench.prepared
    names = {layer_precision.layer for layer_precision in bench.layer_precisions if layer_precision.precision.takes_smooth_quant}
    layers = takes_smooth_quant(model, [layer for layer in prepared.layers if layer.name in names])
    if not layers:
        return in_use, ()
    spans, other = (_spans(bench, layers, part) for part in (bench.fitted, bench.held_out))
    progress(0.25, "channel ranges measured")
    smooth_quants = fit_smooth_quants(model, layers, spans)
    tried = _tried(bench, in_use, layers, smooth_quants, progress)
    kept = [smooth_quant for smooth_quant, entry in zip(smooth_quants, tried, strict=True) if entry.kept]
    return replace(in_use, smooth_quants=tuple(with_range(smooth_quant, _joined(spans, other)) for smooth_quant in kept)), tried


def _tried(
    bench: Bench, in_use: InUse, layers: Sequence[Layer], smooth_quants: Sequence[SmoothQuantScaling], progress: Progress
) -> tuple[Correction, ...]:
    """Return what each SmoothQuant scaling is worth, from as many samples as leave no doubt."""
    parts = bench.held_out_parts(LOOKS)
    seen: dict[int, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {index: [] for index in range(len(smooth_quants))}
    gains: dict[int, Gain] = {}
    still_open = set(seen)
    for number, part in enumerate(parts):
        wanted = {name for index in still_open for name in smooth_quants[index].layers}
        # one float model in pieces at a time
        before, after = (_losses(bench, in_use, layers, candidates, part, wanted) for candidates in ((), smooth_quants))
        for index in still_open:
            names = smooth_quants[index].layers
            seen[index].append((_sum_of(before, names), _sum_of(after, names)))
            gains[index] = gain_of(*(np.concatenate(values) for values in zip(*seen[index], strict=True)))
        if number == 0:
            least = LEAST_SHARE * sum(gain.before for gain in gains.values())
            still_open = {index for index in still_open if gains[index].before > least}
        still_open = {index for index in still_open if not gains[index].is_clear}
        progress(0.25 + 0.75 * (number + 1) / len(parts), f"SmoothQuant of {len(seen) - len(still_open)} of {len(seen)} tensors decided")
        if not still_open:
            break
    return tuple(
        Correction(
            CorrectionKind.SMOOTH_QUANT,
            smooth_quant.layers,
            gains[index].before,
            gains[index].after,
            gains[index].error,
            gains[index].samples,
            gains[index].beyond_noise and gains[index].before > least,
        )
        for index, smooth_quant in enumerate(smooth_quants)
    )


def _losses(
    bench: Bench,
    in_use: InUse,
    layers: Sequence[Layer],
    candidates: Sequence[SmoothQuantScaling],
    part: NDArray[np.int64],
    wanted: Collection[str],
) -> dict[str, NDArray[np.float64]]:
    """Return the loss of each wanted layer alone in INT8, (samples,), with these SmoothQuant scalings in place."""
    prepared, probed = bench.prepared, bench.prepared.probed
    reference = ReferenceModel(bench.model, layers, in_use.ranges, prepared.scheme, candidates, axes=probed.axes, outputs=probed.names)
    probes = [LayerPrecision(layer.name, Precision.INT8) for layer in layers if layer.name in wanted]
    batches = SampleShare(bench.samples, part).batches(min(prepared.batch, len(part)))
    found = measure_layer_losses(reference, probed.forms, probes, batches, weights=prepared.outputs.weights, workers=processors()).loss
    return {probe.layer: found[:, column] for column, probe in enumerate(probes)}


def _sum_of(losses: Mapping[str, NDArray[np.float64]], names: Sequence[str]) -> NDArray[np.float64]:
    """Return the sum of these layers' losses of each sample, (samples,)."""
    return np.asarray(np.sum([losses[name] for name in names], axis=0))


def _spans(bench: Bench, layers: Sequence[Layer], part: NDArray[np.int64]) -> Spans:
    batch = bench.prepared.batch if bench.prepared.is_batch_fixed else min(bench.prepared.batch, SPAN_BATCH)
    return channel_spans(bench.model, layers, SampleShare(bench.samples, part).batches(batch))


def _joined(first: Spans, second: Spans) -> Spans:
    """Return spans that cover both; a tensor may be empty on all samples of one."""
    found = {**second, **first}
    for name in first.keys() & second.keys():
        found[name] = np.minimum(first[name][0], second[name][0]), np.maximum(first[name][1], second[name][1])
    return found
