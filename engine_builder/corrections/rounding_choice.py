"""Rounds integer weights by GPTQ where that lowers the loss, as a part of the stage ``repair``.

The levels of each layer are fitted to some of the calibration samples and judged on others by the loss of the layer alone in low precision.
Those of one precision are kept together, if the losses of its layers add up to less than with the nearest levels by two standard errors;
only a layer that loses more by two standard errors of its own keeps the nearest. Asking for proof layer by layer would throw away most of
the gain: layers are many, and the noise of a few samples hides what each of them gains alone (ResNet-20 at 4 bits: 0.0033 instead of
0.0018, from 0.0082).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.algorithms.weight_rounding import gptq_levels
from calibration.process.worker_threads import processors
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.range_losses import RangeTrial, measure_trials
from engine_builder.corrections.acceptance import gain_of
from engine_builder.corrections.method import Bench, InUse, Progress
from engine_builder.records.corrections import Correction, CorrectionKind

FITTING_SAMPLES = 128  # whose rows fill the Hessians of plain products
FITTING_PICTURES = 32  # of models with convolutions: each sample has many rows, and large activations
FITTING_BATCH = 8
JUDGING_SAMPLES = 48


def choose_rounding(bench: Bench, in_use: InUse, progress: Progress) -> tuple[InUse, tuple[Correction, ...]]:
    """Replace the nearest integer weights where others are better; a ``CorrectionMethod``. Only for precisions that the job names."""
    model, prepared = bench.model, bench.prepared
    layer_precisions = [layer_precision for layer_precision in bench.layer_precisions if layer_precision.precision in bench.gptq]
    spatial = any(layer.op_type == "Conv" for layer in prepared.layers)
    batch = prepared.batch if prepared.is_batch_fixed else FITTING_BATCH
    share = bench.fitted_share(FITTING_PICTURES if spatial else FITTING_SAMPLES)

    def report(done: int, total: int) -> None:
        progress(0.6 * done / total, f"weights behind {done} of {total} tensors rounded by GPTQ")

    batches = share.batches(min(batch, share.samples))
    levels = gptq_levels(model, prepared.layers, layer_precisions, prepared.scheme, batches, in_use.smooth_quants, on_layer=report)
    if not levels:
        return in_use, ()
    trials = [
        RangeTrial(layer_precision) for layer_precision in layer_precisions if (layer_precision.layer, layer_precision.precision) in levels
    ]
    others = bench.held_out_share(JUDGING_SAMPLES)

    def loss(tried: Levels) -> NDArray[np.float64]:
        reference = ReferenceModel(
            model,
            prepared.layers,
            in_use.ranges,
            prepared.scheme,
            in_use.smooth_quants,
            levels=tried,
            axes=prepared.probed.axes,
            outputs=prepared.probed.names,
        )
        batches = others.batches(prepared.batch)
        measured = measure_trials(reference, prepared.probed.forms, trials, batches, weights=prepared.outputs.weights, workers=processors())
        progress(1.0 if tried else 0.8, f"{len(trials)} layers with {'second-order' if tried else 'nearest'} weights")
        return measured

    losses = loss({}), loss(levels)  # one float model in pieces at a time
    kept = dict(in_use.levels)
    corrections = []
    for precision in dict.fromkeys(item.layer_precision.precision for item in trials):
        columns = [index for index, item in enumerate(trials) if item.layer_precision.precision is precision]
        helps = gain_of(*(loss[:, columns].sum(axis=1) for loss in losses)).beyond_noise
        for index in columns:
            layer, gain = trials[index].layer_precision.layer, gain_of(*(loss[:, index] for loss in losses))
            keeps = helps and not gain.loss_beyond_noise
            corrections.append(Correction(CorrectionKind.GPTQ, (layer,), gain.before, gain.after, gain.error, gain.samples, keeps))
            if keeps:
                kept[layer, precision] = levels[layer, precision]
    return replace(in_use, levels=kept), tuple(corrections)
