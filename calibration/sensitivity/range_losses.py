"""Measures layers alone in low precision with other ranges than their tensors' own, from one float pass for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.execution.onnxruntime_session import Array
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.process.worker_threads import in_parallel
from calibration.sensitivity.perturbed_model import Probe, ReferenceModel
from calibration.sensitivity.task_losses import Comparison, LossForm


@dataclass(frozen=True, slots=True)
class RangeTrial:
    """A layer precision on its own, with other ranges for some tensors."""

    layer_precision: LayerPrecision
    spans: tuple[tuple[str, float, float], ...] = ()  # tensor, lowest and highest value


def measure_trials(
    reference: ReferenceModel,
    kinds: Sequence[LossForm],
    trials: Sequence[RangeTrial],
    batches: Iterable[Mapping[str, Array]],
    *,
    weights: Sequence[float] = (),
    workers: int = 1,
) -> NDArray[np.float64]:
    """Return the loss of each sample in each trial, (samples, trials).

    Args:
        reference: The float model in pieces.
        kinds: Kind of each output, or its parts.
        trials: What to measure; every layer named is in ``reference``.
        batches: The feeds of each batch.
        weights: Of each output, as for ``Comparison``; none: all weigh the same.
        workers: Probes in flight at once.
    """
    wanted: dict[str, list[int]] = {}
    for index, item in enumerate(trials):
        wanted.setdefault(item.layer_precision.layer, []).append(index)
        reference.open_quantized([(item.layer_precision.layer, item.layer_precision.precision)], item.spans)
    parts = []
    for batch in batches:
        run = reference.begin(batch)
        compare = Comparison(kinds, run.outputs, weights)
        loss = np.zeros((run.samples, len(trials)))

        def measure(probe: Probe, compare: Comparison = compare) -> list[tuple[int, NDArray[np.float64]]]:
            found = []
            for index in wanted.get(probe.layer.name, []):
                output = probe.quantized_output(trials[index].layer_precision.precision, trials[index].spans)
                found.append((index, compare.losses(probe.outputs_from(output))))
            return found

        for found in in_parallel(measure, run.probes(), workers):
            for index, losses in found:
                loss[:, index] = losses
        parts.append(loss)
    return np.concatenate(parts)
