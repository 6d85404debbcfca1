"""Smooths the inputs of layers with integer products where that lowers their loss.

A SmoothQuant scaling is fitted to some of the calibration samples and kept only if, on others, the layers that read the tensor lose less
with it than without by two standard errors: it is paid for with a multiplication in every engine, and a gain within the noise is not worth
that. What is kept gets its range from all samples, as every tensor does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.smooth_quant import SmoothQuantScaling, Spans, channel_spans, fit_smooth_quants, takes_smooth_quant, with_range
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.process.worker_threads import processors
from calibration.sensitivity.layer_losses import measure_layer_losses
from calibration.sensitivity.perturbed_model import ReferenceModel
from engine_builder.corrections.acceptance import gain_of
from engine_builder.corrections.method import Bench, InUse, Progress
from engine_builder.records.corrections import Correction, CorrectionKind

SPAN_BATCH = 8


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

    def loss(candidates: Sequence[SmoothQuantScaling]) -> NDArray[np.float64]:
        probed = prepared.probed
        reference = ReferenceModel(model, layers, in_use.ranges, prepared.scheme, candidates, axes=probed.axes, outputs=probed.names)
        batches = bench.samples.take(bench.held_out).batches(prepared.batch)
        probes = [LayerPrecision(layer.name, Precision.INT8) for layer in layers]
        found = measure_layer_losses(reference, probed.forms, probes, batches, weights=prepared.outputs.weights, workers=processors()).loss
        progress(1.0 if candidates else 0.5, f"{len(layers)} layers with{'' if candidates else 'out'} SmoothQuant")
        return found

    tried = _compared(layers, smooth_quants, loss(()), loss(smooth_quants))  # one float model in pieces at a time
    kept = [smooth_quant for smooth_quant, entry in zip(smooth_quants, tried, strict=True) if entry.kept]
    return replace(in_use, smooth_quants=tuple(with_range(smooth_quant, _joined(spans, other)) for smooth_quant in kept)), tried


def _spans(bench: Bench, layers: Sequence[Layer], part: NDArray[np.int64]) -> Spans:
    batch = bench.prepared.batch if bench.prepared.is_batch_fixed else min(bench.prepared.batch, SPAN_BATCH)
    return channel_spans(bench.model, layers, bench.samples.take(part).batches(batch))


def _joined(first: Spans, second: Spans) -> Spans:
    """Return spans that cover both; a tensor may be empty on all samples of one."""
    found = {**second, **first}
    for name in first.keys() & second.keys():
        found[name] = np.minimum(first[name][0], second[name][0]), np.maximum(first[name][1], second[name][1])
    return found


def _compared(
    layers: Sequence[Layer], smooth_quants: Sequence[SmoothQuantScaling], before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[Correction, ...]:
    """Return what each SmoothQuant scaling is worth.

    Args:
        layers: The layers probed.
        smooth_quants: Each for some of the layers.
        before: (samples, layers), the loss of each layer alone without its SmoothQuant scaling.
        after: The same with it.
    """
    place = {layer.name: index for index, layer in enumerate(layers)}
    tried = []
    for smooth_quant in smooth_quants:
        columns = [place[name] for name in smooth_quant.layers]
        plain, smoothed = before[:, columns].sum(axis=1), after[:, columns].sum(axis=1)
        gain = gain_of(plain, smoothed)
        tried.append(
            Correction(
                CorrectionKind.SMOOTH_QUANT, smooth_quant.layers, gain.before, gain.after, gain.error, gain.samples, gain.beyond_noise
            )
        )
    return tuple(tried)
