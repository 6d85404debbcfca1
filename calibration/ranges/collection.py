"""Lowest and highest finite value of every tensor that a layer may quantize, and what else it holds.

An input of the model that no layer reads itself, such as an additive mask, has a range too where that is beyond FP16's: an engine must not
compute with it in FP16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import onnx

from calibration.data.sample_axes import SampleAxes
from calibration.execution.layerwise_run import LayerwiseRun
from calibration.execution.onnxruntime_session import Array
from calibration.graph.layers import Layer
from calibration.nonfinite import Special, finite_of, specials_in
from calibration.number_formats.grids import FP16_MAX
from calibration.onnx_model.weights_in_file import array_of, read_prepared
from calibration.ranges.estimators import clipped_range
from calibration.ranges.histograms import Histogram
from calibration.ranges.range_table import CLIPPING, RangeMethod, RangeTable


def collect_ranges(
    model: Path,
    layers: Sequence[Layer],
    batches: Iterable[Mapping[str, Array]],
    *,
    method: RangeMethod,
    symmetric: bool = False,
    axes: SampleAxes | None = None,
    on_batch: Callable[[int], None] = lambda samples: None,
) -> RangeTable:
    """Return the ranges of the inputs and outputs of ``layers``.

    Args:
        model: The prepared model's file.
        layers: Its layers.
        batches: The feeds of each batch; read once.
        method: How a range is chosen; AUTO and BEST give min-max, which the measurements that decide start from.
        symmetric: The target's activations are signed with zero point 0.
        axes: Where the model counts samples. None: on the first axis of every input.
        on_batch: Told the number of samples seen after each batch.

    Raises:
        CalibrationError: The model cannot run on these samples.
    """
    loaded = read_prepared(model)
    layerwise = LayerwiseRun(loaded, layers)
    spans: dict[str, tuple[float, float]] = {}
    inputs: dict[str, tuple[float, float]] = {}
    specials = _specials_of_constants(loaded, layers)
    named: dict[str, None] = {}
    histograms: dict[str, Histogram] = {}
    seen = 0
    for batch in batches:
        for name, value in layerwise.tensors(batch):
            named[name] = None
            if found := specials_in(value):
                specials[name] = specials.get(name, frozenset()) | found
            finite = finite_of(value)
            _widen(spans, name, finite)
            if method in CLIPPING:
                histograms.setdefault(name, Histogram()).add(finite)
        for name, value in batch.items():
            if value.dtype.kind == "f":
                _widen(inputs, name, finite_of(value))
        seen += (axes or SampleAxes()).samples(batch)
        on_batch(seen)
    spans |= {name: clipped_range(histogram, method, symmetric=symmetric) for name, histogram in histograms.items() if histogram.total}
    large = {name: span for name, span in inputs.items() if name not in named and max(map(abs, span)) > FP16_MAX}
    empty = tuple(name for name in named if name not in spans and name not in specials)
    return RangeTable(large | spans, method, seen, {name: tuple(sorted(found)) for name, found in specials.items()}, empty)


def collect_histograms(
    model: onnx.ModelProto, layers: Sequence[Layer], tensors: Iterable[str], batches: Iterable[Mapping[str, Array]]
) -> dict[str, Histogram]:
    """Return the histogram of each of the tensors, by name.

    Args:
        model: The prepared model.
        layers: Its layers.
        tensors: Some of their inputs and outputs.
        batches: Inputs by name, each (batch, ...); values that are not finite are passed over; read once.
    """
    layerwise = LayerwiseRun(model, layers)
    histograms = {name: Histogram() for name in tensors}
    for batch in batches:
        for name, value in layerwise.tensors(batch):
            if name in histograms:
                histograms[name].add(finite_of(value))
    return histograms


def _specials_of_constants(model: onnx.ModelProto, layers: Sequence[Layer]) -> dict[str, frozenset[Special]]:
    """Return what the weights and biases of layers hold beside finite numbers, by name."""
    wanted = {name for layer in layers for name in (layer.weight, layer.bias) if name is not None}
    held = {tensor.name: specials_in(array_of(tensor)) for tensor in model.graph.initializer if tensor.name in wanted}
    return {name: kinds for name, kinds in held.items() if kinds}


def _widen(spans: dict[str, tuple[float, float]], name: str, values: Array) -> None:
    """Widen the span of a tensor to the values, which are finite; none, as of an empty tensor, add nothing."""
    if values.size:
        low, high = float(values.min()), float(values.max())
        known = spans.get(name, (low, high))
        spans[name] = min(low, known[0]), max(high, known[1])
