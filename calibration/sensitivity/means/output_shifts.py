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
from calibration.execution.onnxruntime_session import Array, Piece
from calibration.execution.partition import Graph, Unit
from calibration.execution.tensorwise_run import TensorwiseRun
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
        batches: Inputs by name, each (batch, ...). What is alive between two layers is held for all of them.
        smooth_quants: Of the inputs of layers, where those are quantized.
        levels: Integer weights in the place of the nearest, for some layers and precisions.
    """
    place = {location.layer: location for location in locations}
    graph = Graph(model, layers)
    units = {unit.layer.name: unit for unit in graph.units}
    readers: dict[str, list[LayerPrecision]] = {}
    for item in layer_precisions:
        if item.layer in place:
            readers.setdefault(units[item.layer].layer.inputs[0], []).append(item)
    smooth_quant = {name: item for item in smooth_quants for name in item.layers}
    computed = [name for node in model.graph.node for name in node.output if name in readers]
    run = TensorwiseRun(model, {name: name for name in computed}, matrices=graph.matrices)
    alive = [dict(batch) for batch in batches]
    given = {name: [batch[name] for batch in alive] for name in readers.keys() - set(computed)}
    found = {}
    for tensor in (*given, *computed):
        values = given[tensor] if tensor in given else run.advance(alive, tensor)
        for item in readers[tensor]:
            location = place[item.layer]
            head = _Head(
                graph,
                units[item.layer],
                location,
                item.precision,
                ranges,
                scheme,
                smooth_quant.get(item.layer),
                (levels or {}).get((item.layer, item.precision)),
            )
            shift = means[item.layer] - head.mean(values)
            found[item.layer, item.precision] = np.nan_to_num(shift, nan=0.0).astype(np.float32)
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
        self._axis, self._input = location.axis, layer.inputs[0]
        self._piece = Piece(quantized_layer(graph, own, precision, ranges, inner, smooth_quant, levels))
        self._fed: dict[str, Floats] = {}
        if layer.weight is not None and layer.weight in self._piece.inputs:
            self._fed[layer.weight] = rounded_weight(graph, layer, precision, smooth_quant, scheme, levels)

    def mean(self, values: Sequence[Array]) -> NDArray[np.float64]:
        """Return the mean of each channel of the output over all batches of the layer's input."""
        mean = ChannelMean(self._axis)
        for value in values:
            (output,) = self._piece.run({self._input: value, **self._fed}).values()
            mean.add(output)
        return mean.value()
