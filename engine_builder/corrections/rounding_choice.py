"""Rounds integer weights to second order where that lowers the loss, as a part of the stage ``repair``.

The levels of each layer are fitted to some of the calibration samples and judged on others by the loss of the layer alone in low precision.
Those of one precision are kept together, if the losses of its layers add up to less than with the nearest levels by two standard errors;
only a layer that loses more by two standard errors of its own keeps the nearest. Asking for proof layer by layer would throw away most of
the gain: layers are many, and the noise of a few samples hides what each of them gains alone (ResNet-20 at 4 bits: 0.0033 instead of
0.0018, from 0.0082).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.algorithms.smooth_quant import Smoothing
from calibration.algorithms.weight_rounding import second_order_levels
from calibration.data.dataset import CalibrationSet
from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision, Scheme
from calibration.process.worker_threads import processors
from calibration.sensitivity.perturbed_model import ReferenceModel
from calibration.sensitivity.range_losses import RangeTrial, measure_trials
from engine_builder.corrections.acceptance import gain_of
from engine_builder.records.corrections import Repair, RepairKind
from engine_builder.records.inspection import Inspection

FITTING_SAMPLES = 128  # whose rows fill the Hessians of plain products
FITTING_PICTURES = 32  # of models with convolutions: each sample has many rows, and large activations
FITTING_BATCH = 8
JUDGING_SAMPLES = 48

Levels = dict[tuple[str, Precision], NDArray[np.int8]]


def round_weights(
    model: onnx.ModelProto,
    found: Inspection,
    decisions: Sequence[Decision],
    ranges: Mapping[str, tuple[float, float]],
    scheme: Scheme,
    smoothings: Sequence[Smoothing],
    samples: CalibrationSet,
    fitted: NDArray[np.int64],
    held_out: NDArray[np.int64],
    *,
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> tuple[Levels, tuple[Repair, ...]]:
    """Return the integer weights that replace the nearest, and everything that was tried for them.

    Args:
        model: The prepared model.
        found: The job's inspection.
        decisions: Layers and the integer precisions whose weights are to be rounded to second order.
        ranges: Of the layers' tensors.
        scheme: How the target quantizes.
        smoothings: Those that are in use.
        samples: The calibration set.
        fitted: Its samples that the levels are fitted to.
        held_out: Those that judge them.
        progress: Told the share done (0 to 1) and what is being done.
    """
    spatial = any(layer.op_type == "Conv" for layer in found.layers)
    batch = found.batch if found.is_batch_fixed else FITTING_BATCH
    share = samples.take(fitted[: _whole(FITTING_PICTURES if spatial else FITTING_SAMPLES, found)])

    def report(done: int, total: int) -> None:
        progress(0.6 * done / total, f"weights behind {done} of {total} tensors rounded to second order")

    batches = share.batches(min(batch, share.samples))
    levels = second_order_levels(model, found.layers, decisions, scheme, batches, smoothings, on_layer=report)
    if not levels:
        return {}, ()
    trials = [RangeTrial(decision) for decision in decisions if (decision.layer, decision.precision) in levels]
    others = samples.take(held_out[: _whole(JUDGING_SAMPLES, found)])

    def loss(tried: Levels) -> NDArray[np.float64]:
        reference = ReferenceModel(
            model, found.layers, ranges, scheme, smoothings, levels=tried, axes=found.probed.axes, outputs=found.probed.names
        )
        batches = others.batches(found.batch)
        measured = measure_trials(reference, found.probed.kinds, trials, batches, weights=found.weights, workers=processors())
        progress(1.0 if tried else 0.8, f"{len(trials)} layers with {'second-order' if tried else 'nearest'} weights")
        return measured

    losses = loss({}), loss(levels)  # one float model in pieces at a time
    kept, repairs = {}, []
    for precision in dict.fromkeys(item.decision.precision for item in trials):
        columns = [index for index, item in enumerate(trials) if item.decision.precision is precision]
        helps = gain_of(*(loss[:, columns].sum(axis=1) for loss in losses)).beyond_noise
        for index in columns:
            layer, gain = trials[index].decision.layer, gain_of(*(loss[:, index] for loss in losses))
            keeps = helps and not gain.loss_beyond_noise
            repairs.append(Repair(RepairKind.SECOND_ORDER, (layer,), gain.before, gain.after, gain.error, gain.samples, keeps))
            if keeps:
                kept[layer, precision] = levels[layer, precision]
    return kept, tuple(repairs)


def _whole(wanted: int, found: Inspection) -> int:
    """Return about ``wanted`` samples in whole batches where the model's batch is fixed."""
    return max(wanted // found.batch, 1) * found.batch if found.is_batch_fixed else wanted
