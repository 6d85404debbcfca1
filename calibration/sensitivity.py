"""How much each decision costs: the measured quantization loss and the second-order Hessian estimate, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.hessian import HessianTrace
from calibration.precision import Precision
from calibration.singles import Decision, Singles


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The cost of one decision on its own; losses are per sample, as in losses.py."""

    layer: str
    precision: Precision
    loss: float  # measured: E[loss with only this layer low]
    loss_error: float  # standard error over samples
    hessian: float | None  # 1/2 sum over tensors of trace / size * ||x - Q(x)||^2; None for precisions that were not probed
    hessian_error: float | None

    @property
    def decision(self) -> Decision:
        """The decision that this is the cost of."""
        return Decision(self.layer, self.precision)


@dataclass(frozen=True, slots=True)
class SensitivityTable:
    """A row for each decision, in the order of the probes."""

    rows: tuple[Sensitivity, ...]
    samples: int  # samples behind ``loss``
    hessian_samples: int  # samples behind ``hessian``
    plain_forwards: float  # work of the loss probes, in forward passes of the whole model over ``samples``
    traces: tuple[HessianTrace, ...]


def sensitivity_table(singles: Singles, traces: Sequence[HessianTrace], *, hessian_samples: int, plain_forwards: float) -> SensitivityTable:
    """Return the table of what was measured.

    Args:
        singles: The loss probes.
        traces: The Hessian traces at 8 bits; layers may be missing.
        hessian_samples: Samples behind the traces.
        plain_forwards: Work of the loss probes, in whole forward passes.
    """
    found: dict[str, list[HessianTrace]] = {}
    for trace in traces:
        found.setdefault(trace.layer, []).append(trace)
    rows = []
    for index, decision in enumerate(singles.decisions):
        loss = singles.loss[:, index]
        parts = found.get(decision.layer, []) if decision.precision is Precision.INT8 else []
        rows.append(
            Sensitivity(
                decision.layer,
                decision.precision,
                float(np.mean(loss)),
                float(np.std(loss, ddof=1) / math.sqrt(len(loss))) if len(loss) > 1 else float("inf"),
                sum(part.sensitivity for part in parts) if parts else None,
                math.sqrt(sum(part.sensitivity_error**2 for part in parts)) if parts else None,
            )
        )
    return SensitivityTable(tuple(rows), singles.samples, hessian_samples, plain_forwards, tuple(traces))
