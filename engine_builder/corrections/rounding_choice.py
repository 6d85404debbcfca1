"""Rounds integer weights by GPTQ where that lowers the loss, as a part of the stage ``correct``.

The levels of each layer are fitted to some of the calibration samples and judged on others by the loss of the layer alone in low precision,
its bias corrected. Those of one precision are kept together, if the losses of its layers add up to less than with the nearest levels by two
standard errors; only a layer that loses more by two standard errors of its own keeps the nearest. Asking for proof layer by layer would
throw away most of the gain: layers are many, and the noise of a few samples hides what each of them gains alone (ResNet-20 at 4 bits:
0.0033 instead of 0.0018, from 0.0082).

Besides the precisions that a job names, INT8 is tried for the layers whose loss is due in large part to the rounding of their weight: that
is measured alone, on a few samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.algorithms.weight_rounding import gptq_levels, roundable
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.process.worker_threads import processors
from calibration.sensitivity.means.mean_inputs import MeanInputs
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.range_losses import RangeTrial, measure_trials
from engine_builder.corrections.acceptance import gain_of
from engine_builder.corrections.method import Bench, InUse, Progress
from engine_builder.corrections.single_biases import SingleBiases, single_biases
from engine_builder.records.corrections import Correction, CorrectionKind

FITTING_SAMPLES = 128  # whose rows fill the Hessians of plain products
FITTING_PICTURES = 32  # of models with convolutions: each sample has many rows, and large activations
FITTING_BATCH = 8
SCREENING_SAMPLES = 8  # that the share of weight rounding in the loss of each layer is measured on
JUDGING_SAMPLES = 48
MUCH = 0.3  # of a layer's loss, for the rounding of its weight to be worth a better one
LEAST_SHARE = 0.005  # of the losses of all layers, that it must make up


def choose_rounding(bench: Bench, in_use: InUse, progress: Progress) -> tuple[InUse, tuple[Correction, ...]]:
    """Replace the nearest integer weights where others are better; a ``CorrectionMethod``. Only where the job names a precision."""
    if not bench.gptq:
        return in_use, ()
    named = [item for item in bench.layer_precisions if item.precision in bench.gptq]
    possible = roundable(bench.model, bench.prepared.layers)
    others = [
        item
        for item in bench.layer_precisions
        if item.precision is Precision.INT8 and item.precision not in bench.gptq and item.layer in possible
    ]
    if not named and not others:
        return in_use, ()
    biases = single_biases(bench)
    named += _coarse(bench, in_use, biases, others)
    progress(0.2, f"weight rounding of {len(others)} layers measured")
    return _judged(bench, in_use, biases, named, progress)


def _coarse(bench: Bench, in_use: InUse, biases: SingleBiases, layer_precisions: Sequence[LayerPrecision]) -> list[LayerPrecision]:
    """Return those that lose much by the rounding of their weight."""
    if not layer_precisions:
        return []
    reference = _reference(bench, in_use, biases, layer_precisions)
    means = MeanInputs(reference, biases.locations, biases.samples.batches(min(bench.prepared.batch, biases.samples.samples)))
    whole, of_weight = ([RangeTrial(item, is_of_weight=alone) for item in layer_precisions] for alone in (False, True))
    share = bench.fitted_share(SCREENING_SAMPLES)
    losses = measure_trials(
        reference,
        bench.prepared.probed.forms,
        [*whole, *of_weight],
        share.batches(min(bench.prepared.batch, share.samples)),
        weights=bench.prepared.outputs.weights,
        means=means,
        workers=processors(),
    ).mean(axis=0)
    alone, weight = np.split(losses, 2)
    worth = (weight >= MUCH * alone) & (weight > LEAST_SHARE * alone.sum())
    return [item for item, is_worth in zip(layer_precisions, worth, strict=True) if is_worth]


def _judged(
    bench: Bench, in_use: InUse, biases: SingleBiases, layer_precisions: Sequence[LayerPrecision], progress: Progress
) -> tuple[InUse, tuple[Correction, ...]]:
    """Fit levels and keep those that help."""
    model, prepared = bench.model, bench.prepared
    spatial = any(layer.op_type == "Conv" for layer in prepared.layers)
    batch = prepared.batch if prepared.is_batch_fixed else FITTING_BATCH
    share = bench.fitted_share(FITTING_PICTURES if spatial else FITTING_SAMPLES)

    def report(done: int, total: int) -> None:
        progress(0.2 + 0.4 * done / total, f"weights behind {done} of {total} tensors rounded by GPTQ")

    levels = gptq_levels(
        model,
        prepared.layers,
        layer_precisions,
        prepared.scheme,
        share.batches(min(batch, share.samples)),
        in_use.smooth_quants,
        centred=[location.layer for location in biases.locations],
        on_layer=report,
    )
    tried = [item for item in layer_precisions if (item.layer, item.precision) in levels]
    if not tried:
        return in_use, ()
    others = bench.held_out_share(JUDGING_SAMPLES)

    def loss(with_levels: Levels) -> NDArray[np.float64]:
        reference = _reference(bench, replace(in_use, levels=with_levels), biases, tried)
        measured = measure_trials(
            reference,
            prepared.probed.forms,
            [RangeTrial(item) for item in tried],
            others.batches(prepared.batch),
            weights=prepared.outputs.weights,
            workers=processors(),
        )
        progress(1.0 if with_levels else 0.8, f"{len(tried)} layers with {'second-order' if with_levels else 'nearest'} weights")
        return measured

    losses = loss({}), loss(levels)  # one float model in pieces at a time
    kept = dict(in_use.levels)
    corrections = []
    for precision in dict.fromkeys(item.precision for item in tried):
        columns = [index for index, item in enumerate(tried) if item.precision is precision]
        helps = gain_of(*(loss[:, columns].sum(axis=1) for loss in losses)).beyond_noise
        for index in columns:
            layer, gain = tried[index].layer, gain_of(*(loss[:, index] for loss in losses))
            keeps = helps and not gain.loss_beyond_noise
            corrections.append(Correction(CorrectionKind.GPTQ, (layer,), gain.before, gain.after, gain.error, gain.samples, keeps))
            if keeps:
                kept[layer, precision] = levels[layer, precision]
    return replace(in_use, levels=kept), tuple(corrections)


def _reference(bench: Bench, in_use: InUse, biases: SingleBiases, layer_precisions: Sequence[LayerPrecision]) -> ReferenceModel:
    prepared = bench.prepared
    return ReferenceModel(
        bench.model,
        prepared.layers,
        in_use.ranges,
        prepared.scheme,
        in_use.smooth_quants,
        levels=in_use.levels,
        shifts=biases.shifts(layer_precisions, in_use),
        axes=prepared.probed.axes,
        outputs=prepared.probed.names,
    )
