"""Lowest and highest value of every tensor that a layer may quantize."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from calibration.chain import Chain
from calibration.clipping import clipped_range
from calibration.errors import InvalidCalibrationSetError
from calibration.histograms import Histogram
from calibration.layers import Layer
from calibration.model import read_model
from calibration.range_table import RangeMethod, RangeTable
from calibration.session import Array


def collect_ranges(
    model: Path,
    layers: Sequence[Layer],
    batches: Iterable[Mapping[str, Array]],
    *,
    method: RangeMethod,
    symmetric: bool = False,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> RangeTable:
    """Return the ranges of the inputs and outputs of ``layers``.

    Args:
        model: The prepared model's file.
        layers: Its layers.
        batches: Inputs by name, each (batch, ...); read once.
        method: How a range is chosen; BEST gives min-max, which the measurements that decide start from.
        symmetric: The target's activations are signed with zero point 0.
        on_batch: Told the number of samples seen after each batch.

    Raises:
        InvalidCalibrationSetError: A tensor is not finite on these samples.
        CalibrationError: The model cannot run on these samples.
    """
    chain = Chain(read_model(model), layers)
    spans: dict[str, tuple[float, float]] = {}
    histograms: dict[str, Histogram] = {}
    seen = 0
    for batch in batches:
        for name, value in chain.tensors(batch):
            spans[name] = _widened(name, spans.get(name), value)
            if method not in (RangeMethod.MINMAX, RangeMethod.BEST):
                histograms.setdefault(name, Histogram()).add(value)
        seen += len(next(iter(batch.values())))
        on_batch(seen)
    spans |= {name: clipped_range(histogram, method, symmetric=symmetric) for name, histogram in histograms.items()}
    return RangeTable(spans, method, seen)


def collect_histograms(
    model: onnx.ModelProto, layers: Sequence[Layer], tensors: Iterable[str], batches: Iterable[Mapping[str, Array]]
) -> dict[str, Histogram]:
    """Return the histogram of each of the tensors, by name.

    Args:
        model: The prepared model.
        layers: Its layers.
        tensors: Some of their inputs and outputs.
        batches: Inputs by name, each (batch, ...), finite in every tensor; read once.
    """
    chain = Chain(model, layers)
    histograms = {name: Histogram() for name in tensors}
    for batch in batches:
        for name, value in chain.tensors(batch):
            if name in histograms:
                histograms[name].add(value)
    return histograms


def _widened(name: str, span: tuple[float, float] | None, value: Array) -> tuple[float, float]:
    """Return ``span`` widened to the values, after a check that they are finite: comparisons would pass over a NaN."""
    with np.errstate(invalid="ignore"):
        low, high = float(np.min(value)), float(np.max(value))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InvalidCalibrationSetError(
            f"Tensor {name!r} takes the values {low} to {high} on the calibration set; finite values are needed.",
            fix="Check the calibration samples: with these inputs the float model itself overflows or gives NaN.",
        )
    return (low, high) if span is None else (min(low, span[0]), max(high, span[1]))
