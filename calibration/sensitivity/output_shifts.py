r"""The bias correction of layers that are alone in low precision: what probes of them take off, as the engines that are built do.

Every engine moves the mean of each channel of a quantized layer's output back to that of the float model (bias_correction.py), by means
over a few calibration samples. With one layer in low precision and all before it in float, that shift is

    b_c = E[y_c] - E[y'_c],

and it takes the layer's own kernel to measure it, not what follows. It is measured here over the very samples that engines are corrected
on: the mean of a batch itself would leave less than an engine does, down to nothing where a batch is one sample and the layer has one
position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.algorithms.bias_correction import BiasLocation, ChannelMean
from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.execution.layerwise_run import LayerwiseRun
from calibration.execution.onnxruntime_session import Array, Piece
from calibration.execution.partition import Graph, Unit
from calibration.graph.layers import Layer
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision, Scheme
from calibration.sensitivity.simulated_layers import Floats, Shifts, quantized_layer, rounded_weight


def measure_shifts(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    layer_precisions: Sequence[LayerPrecision],
    ranges: Mapping[str, tuple[float, float]],
    scheme: Scheme,
    locations: Sequence[BiasLocation],
    means: Mapping[str, NDArray[np.float64]],
    batches: Iterable[Mapping[str, Array]],
    *,
    smooth_quants: Sequence[SmoothQuantScaling] = (),
    levels: Levels | None = None,
) -> Shifts:
    """Return what the bias correction adds to the output of each layer precision that is alone in an engine, (channels,) float32.

    Args:
        model: The prepared model.
        layers: Its layers.
        layer_precisions: What to correct; those without a bias location are left out.
        ranges: Ranges of the activations.
        scheme: How the target quantizes.
        locations: Bias locations of the layers.
        means: ``mean_outputs`` of them on the same samples.
        batches: Inputs by name, each (batch, ...); read once.
        smooth_quants: Of the inputs of layers, where those are quantized.
        levels: Integer weights in the place of the nearest, for some layers and precisions.
    """
    place = {location.layer: location for location in locations}
    wanted: dict[str, list[Precision]] = {}
    for item in layer_precisions:
        if item.layer in place:
            wanted.setdefault(item.layer, []).append(item.precision)
    own = [layer for layer in layers if layer.name in wanted]
    if not own:
        return {}
    graph = Graph(model, layers)
    smooth_quant = {name: item for item in smooth_quants for name in item.layers}
    units = {unit.layer.name: unit for unit in graph.units}
    heads: dict[str, list[_Head]] = {}
    for layer in own:
        for precision in wanted[layer.name]:
            made = (levels or {}).get((layer.name, precision))
            head = _Head(graph, units[layer.name], place[layer.name], precision, ranges, scheme, smooth_quant.get(layer.name), made)
            heads.setdefault(layer.inputs[0], []).append(head)
    run = LayerwiseRun(model, own)
    for batch in batches:
        for name, value in run.tensors(batch):
            for head in heads.get(name, ()):
                head.add(value)
    found = {}
    for head in (head for readers in heads.values() for head in readers):
        shift = means[head.layer] - head.mean.value()
        found[head.layer, head.precision] = np.nan_to_num(shift, nan=0.0).astype(np.float32)
    return found


class _Head:
    """A layer's own node in a low precision, before its bias correction, any activation and the rounding of its output."""

    def __init__(
        self,
        graph: Graph,
        unit: Unit,
        location: BiasLocation,
        precision: Precision,
        ranges: Mapping[str, tuple[float, float]],
        scheme: Scheme,
        smooth_quant: SmoothQuantScaling | None,
        levels: NDArray[np.int8] | None,
    ) -> None:
        layer = replace(unit.layer, output=location.output, nodes=unit.layer.nodes[:1])
        inner = replace(scheme, quantized_outputs=())
        own = Unit(layer, unit.start, unit.start + 1)
        self.layer, self.precision = layer.name, precision
        self._input = layer.inputs[0]
        self._piece = Piece(quantized_layer(graph, own, precision, ranges, inner, smooth_quant, levels))
        self._fed: dict[str, Floats] = {}
        if layer.weight is not None and layer.weight in self._piece.inputs:
            self._fed[layer.weight] = rounded_weight(graph, layer, precision, smooth_quant, scheme, levels)
        self.mean = ChannelMean(location.axis)

    def add(self, value: Array) -> None:
        """Run on the values of the layer's input."""
        (output,) = self._piece.run({self._input: value, **self._fed}).values()
        self.mean.add(output)
