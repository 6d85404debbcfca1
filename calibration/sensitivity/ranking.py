"""How much each layer precision costs: the measured loss and the second-order Hessian estimate, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence

from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.sensitivity.layer_losses import LayerLosses
from calibration.sensitivity.records import HessianTrace, Sensitivity, SensitivityTable


def sensitivity_table(
    layer_losses: LayerLosses, traces: Sequence[HessianTrace], *, hessian_samples: int, plain_forwards: float
) -> SensitivityTable:
    """Return the table of what was measured.

    Args:
        layer_losses: The loss probes.
        traces: The Hessian traces, with what each precision rounds; layers and precisions may be missing.
        hessian_samples: Samples behind the traces.
        plain_forwards: Work of the loss probes, in whole forward passes of one sample: ``forwards_of_probes`` of each sample.
    """
    found: dict[LayerPrecision, list[HessianTrace]] = {}
    for trace in traces:
        found.setdefault(LayerPrecision(trace.layer, trace.precision), []).append(trace)
    mean, error, rows = layer_losses.mean, layer_losses.error, []
    for index, layer_precision in enumerate(layer_losses.layer_precisions):
        parts = found.get(layer_precision, [])
        rows.append(
            Sensitivity(
                layer_precision.layer,
                layer_precision.precision,
                float(mean[index]),
                float(error[index]),
                sum(part.sensitivity for part in parts) if parts else None,
                math.sqrt(sum(part.sensitivity_error**2 for part in parts)) if parts else None,
            )
        )
    return SensitivityTable(tuple(rows), layer_losses.samples, hessian_samples, plain_forwards, tuple(traces))


def forwards_of_probes(layer_precisions: Sequence[LayerPrecision], layers: Sequence[Layer]) -> float:
    """Return the work of probing every layer precision on one sample, in forward passes of the whole model.

    That is the float pass, and for each layer precision its layer and the layers after it, counted in multiply-accumulates. What lies
    between layers is taken to cost what they do in proportion.

    Args:
        layer_precisions: What is probed.
        layers: All layers, in graph order.
    """
    total = sum(layer.macs for layer in layers)
    left, share = total, {}
    for layer in layers:
        share[layer.name] = left / total if total else 1.0
        left -= layer.macs
    return 1.0 + sum(share[layer_precision.layer] for layer_precision in layer_precisions)
