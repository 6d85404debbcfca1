"""Lowest and highest value of every tensor that a layer may quantize.

Histograms, and the percentile or the divergence that picks a range from one, are onnxruntime's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnxruntime.quantization.calibrate import HistogramCollector

from calibration.chain import Chain
from calibration.errors import CalibrationError, InvalidCalibrationSetError
from calibration.layers import Layer
from calibration.model import read_model
from calibration.range_table import RangeMethod, RangeTable
from calibration.session import Array

_BINS = {RangeMethod.PERCENTILE: 2048, RangeMethod.ENTROPY: 128}  # onnxruntime's defaults
_PERCENTILE = 99.999


def collect_ranges(
    model: Path,
    layers: Sequence[Layer],
    batches: Iterable[Mapping[str, Array]],
    *,
    method: RangeMethod,
    scratch: Path,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> RangeTable:
    """Return the ranges of the inputs and outputs of ``layers``.

    Args:
        model: The prepared model's file.
        layers: Its layers.
        batches: Inputs by name, each (batch, ...); read once.
        method: How a range is chosen.
        scratch: A folder for temporary files; none is left there.
        on_batch: Told the number of samples seen after each batch.

    Raises:
        InvalidCalibrationSetError: A tensor is not finite on these samples.
        CalibrationError: The model cannot run on these samples.
    """
    chain = Chain(read_model(model), layers)
    spans: dict[str, tuple[float, float]] = {}
    collector = None if method is RangeMethod.MINMAX else _collector(method)
    seen = 0
    for batch in batches:
        for name, value in chain.tensors(batch):
            spans[name] = _widened(name, spans.get(name), value)
            if collector is not None:
                with contextlib.redirect_stdout(io.StringIO()):  # onnxruntime prints
                    collector.collect({name: value})
        seen += len(next(iter(batch.values())))
        on_batch(seen)
    return RangeTable(spans if collector is None else _chosen(collector, method, spans), method, seen)


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


def _collector(method: RangeMethod) -> HistogramCollector:
    return HistogramCollector(
        method=method.value,
        symmetric=False,
        num_bins=_BINS[method],
        num_quantized_bins=_BINS[method],
        percentile=_PERCENTILE,
        scenario="same",
    )


def _chosen(collector: HistogramCollector, method: RangeMethod, spans: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return the range that the method picks from each histogram, inside the values seen."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = collector.compute_collection_result()
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise CalibrationError(f"onnxruntime's {method} calibrator failed: {error}", fix="Set calibration.method to minmax.") from error
    ranges = {}
    for name, (lowest, highest) in spans.items():
        low, high = (float(np.asarray(value).reshape(-1)[0]) for value in found[name][:2])
        ranges[name] = (min(max(low, lowest), highest), max(min(high, highest), lowest))
    return ranges
