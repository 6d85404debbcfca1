"""Measures layers alone in low precision in other ways than an engine's, from one float pass for all of them.

With other ranges than their tensors' own, or with nothing but their weight rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.smooth_quant import multiplied
from calibration.execution.onnxruntime_session import Array
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.process.worker_threads import in_parallel
from calibration.sensitivity.means.mean_inputs import MeanInputs
from calibration.sensitivity.perturbed_model import Probe, ReferenceModel
from calibration.sensitivity.simulated_layers import Floats
from calibration.sensitivity.task_losses import Comparison, LossForm


@dataclass(frozen=True, slots=True)
class RangeTrial:
    """A layer precision on its own, with other ranges for some tensors."""

    layer_precision: LayerPrecision
    spans: tuple[tuple[str, float, float], ...] = ()  # tensor, lowest and highest value
    is_of_weight: bool = False  # nothing else is rounded


def measure_trials(
    reference: ReferenceModel,
    kinds: Sequence[LossForm],
    trials: Sequence[RangeTrial],
    batches: Iterable[Mapping[str, Array]],
    *,
    weights: Sequence[float] = (),
    means: MeanInputs | None = None,
    workers: int = 1,
) -> NDArray[np.float64]:
    """Return the loss of each sample in each trial, (samples, trials).

    Args:
        reference: The float model in pieces.
        kinds: Kind of each output, or its parts.
        trials: What to measure; every layer named is in ``reference``.
        batches: The feeds of each batch.
        weights: Of each output, as for ``Comparison``; none: all weigh the same.
        means: Says how a change of a weight shifts the means that bias correction keeps; None where biases are not corrected. It is for
            trials of weights: all others have what ``reference`` takes off.
        workers: Probes in flight at once at most.
    """
    wanted: dict[str, list[int]] = {}
    for index, item in enumerate(trials):
        wanted.setdefault(item.layer_precision.layer, []).append(index)
        if not item.is_of_weight:
            reference.open_quantized([(item.layer_precision.layer, item.layer_precision.precision)], item.spans)
    parts = []
    for batch in batches:
        run = reference.begin(batch)
        compare = Comparison(kinds, run.outputs, weights)
        loss = np.zeros((run.samples, len(trials)))

        def measure(probe: Probe, compare: Comparison = compare) -> list[tuple[int, NDArray[np.float64]]]:
            found = []
            for index in wanted.get(probe.layer.name, []):
                item = trials[index]
                precision = item.layer_precision.precision
                output = _of_weight(probe, precision, means) if item.is_of_weight else probe.quantized_output(precision, item.spans)
                found.append((index, compare.losses(probe.outputs_from(output))))
            return found

        for found in in_parallel(measure, run.probes(), run.at_once(workers)):
            for index, losses in found:
                loss[:, index] = losses
        parts.append(loss)
        del run, compare, measure  # or the activations of two passes would be there at once
    return np.concatenate(parts)


def _of_weight(probe: Probe, precision: Precision, means: MeanInputs | None) -> Floats:
    """Return the layer's output with its weight rounded and all else in float."""
    model, layer = probe.run.model, probe.layer
    weight, smooth_quant = model.rounded_weight(layer, precision), model.smooth_quant(layer)
    if smooth_quant is not None and precision.multiplies_integers:
        weight = multiplied(weight, layer, smooth_quant.factor)
    shift = None if means is None else means.shift(layer, weight - model.weight(layer))
    return probe.output(weight=weight, shift=shift)
