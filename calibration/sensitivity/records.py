"""What the measurements of a float model found, as plain values: whoever reads them needs no runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision


@dataclass(frozen=True, slots=True)
class HessianTrace:
    """Trace of the loss Hessian with respect to one tensor of a layer, per sample."""

    layer: str
    site: str  # "weight", "input0", "input1" or "output"
    trace: float
    error: float  # standard error of the trace; inf from a single probe
    size: int  # elements of the tensor (of one sample, for activations)
    probes: int
    step: float  # eps, in units of the tensor's root mean square
    settled: bool  # whether two steps agreed within AGREEMENT
    rounding: float  # E ||x - Q(x)||^2 in the precision
    precision: Precision = Precision.INT8

    @property
    def sensitivity(self) -> float:
        """Second-order loss of rounding this tensor alone."""
        return 0.5 * self.trace / self.size * self.rounding

    @property
    def sensitivity_error(self) -> float:
        """Standard error of ``sensitivity`` that comes from the trace."""
        return 0.5 * self.error / self.size * self.rounding


@dataclass(frozen=True, slots=True)
class PairTest:
    """An exact test of two layer precisions, ``first`` before ``second`` in the graph."""

    first: LayerPrecision
    second: LayerPrecision
    dependency: float  # L(i and j) - L(i) - L(j)
    error: float  # its standard error over samples
    samples: int


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The cost of one layer precision on its own; losses are per sample, as in losses.py."""

    layer: str
    precision: Precision
    loss: float  # measured: E[loss with only this layer quantized]
    loss_error: float  # standard error over samples
    hessian: float | None  # 1/2 sum over tensors of trace / size * ||x - Q(x)||^2; None for precisions that were not probed
    hessian_error: float | None

    @property
    def layer_precision(self) -> LayerPrecision:
        """The layer precision that this is the cost of."""
        return LayerPrecision(self.layer, self.precision)


@dataclass(frozen=True, slots=True)
class SensitivityTable:
    """A row for each layer precision, in the order of the probes."""

    rows: tuple[Sensitivity, ...]
    samples: int  # samples behind ``loss``
    hessian_samples: int  # samples behind ``hessian``
    plain_forwards: float  # work of the loss probes, in forward passes of the whole model, each of one sample
    traces: tuple[HessianTrace, ...]


@dataclass(frozen=True, slots=True)
class TensorProbe:
    """What one batch tells of one tensor of a layer, of which ``HessianTrace`` is made.

    Attributes:
        layer: The layer's name.
        site: Which of its tensors: ``weight``, ``input0``, ``output``.
        batch: Number of the batch, from 0.
        curvature: v'Hv.
        rounding: Mean squared rounding error, E ||x - Q(x)||^2, in each precision.
        size: Elements of the tensor; of an activation those of a sample.
        step: Of the finite differences, in units of the tensor's root mean square.
        settled: Whether two steps agreed.
    """

    layer: str
    site: str
    batch: int
    curvature: float
    rounding: Mapping[Precision, float]
    size: int
    step: float
    settled: bool


@dataclass(frozen=True, slots=True)
class TensorProbes:
    """Probes of some tensors, batch by batch, in the order of the layers."""

    rows: tuple[TensorProbe, ...]


def in_order(parts: Sequence[TensorProbes]) -> TensorProbes:
    """Return the probes of all layers from those of parts of them, each of neighbours, in the order of the layers."""
    return TensorProbes(tuple(sorted((row for part in parts for row in part.rows), key=lambda row: row.batch)))


def by_tensor(probes: Sequence[TensorProbe]) -> dict[tuple[str, str], list[TensorProbe]]:
    """Return the probes of each tensor, (layer, site), batch by batch."""
    found: dict[tuple[str, str], list[TensorProbe]] = {}
    for row in probes:
        found.setdefault((row.layer, row.site), []).append(row)
    return found
