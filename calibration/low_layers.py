"""One layer as a model of its own: in float with its weight fed, or in a low precision exactly as the explicit graph has it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.layers import Layer
from calibration.precision import Precision, Scheme, activation_grid, fake_quantize_weight
from calibration.segments import Graph, Unit
from calibration.smoothing import Smoothing, divided

Floats = NDArray[np.float32]


def float_layer(graph: Graph, unit: Unit) -> onnx.ModelProto:
    """Return the layer in float; its weight, if it has one, is an input."""
    fed = (unit.layer.weight,) if unit.layer.weight is not None else ()
    return graph.piece(unit.start, unit.stop, outputs=[unit.layer.output], fed=fed)


def low_layer(
    graph: Graph,
    unit: Unit,
    precision: Precision,
    ranges: Mapping[str, tuple[float, float]],
    scheme: Scheme,
    smoothing: Smoothing | None = None,
) -> onnx.ModelProto:
    """Return the layer in a low precision.

    INT8 rounds inputs, weight and (where the scheme says so) output; narrower integers round the weight alone. With a smoothing, INT8
    rounds the product of the input and the factors, and the divided weight. The rounded weight is a constant of the model, unless it is one
    of ``graph.matrices``: then it is an input.
    """
    layer = unit.layer
    constants: dict[str, TensorProto] = {}
    if layer.weight is not None and layer.weight not in graph.matrices:
        weight = rounded_weight(graph, layer, precision, smoothing)
        constants[layer.weight] = numpy_helper.from_array(weight, layer.weight)
    if precision is not Precision.INT8:
        return graph.piece(unit.start, unit.stop, outputs=[layer.output], constants=constants)
    rounds_output = layer.op_type in scheme.quantized_outputs
    nodes = []
    for name in dict.fromkeys(layer.inputs):
        source, span = name, ranges[name]
        if smoothing is not None and name == smoothing.tensor:
            source, span = f"{name}__smoothed", (smoothing.low, smoothing.high)
            constants[f"{name}__factor"] = numpy_helper.from_array(smoothing.factor, f"{name}__factor")
            nodes.append(helper.make_node("Mul", [name, f"{name}__factor"], [source]))
        nodes += _round_trip(source, f"{name}__rounded", span, scheme, constants)
    for node in graph.nodes[unit.start : unit.stop]:
        clone = onnx.NodeProto()
        clone.CopyFrom(node)
        if node.name == layer.name:
            for index, name in enumerate(clone.input):
                if name in layer.inputs:
                    clone.input[index] = f"{name}__rounded"
        nodes.append(clone)
    output = f"{layer.output}__rounded_output" if rounds_output else layer.output
    if rounds_output:
        nodes += _round_trip(layer.output, output, ranges[layer.output], scheme, constants)
    return graph.piece(unit.start, unit.stop, outputs=[output], nodes=nodes, constants=constants)


def rounded_weight(graph: Graph, layer: Layer, precision: Precision, smoothing: Smoothing | None = None) -> Floats:
    """Return the layer's weight after a round trip through the precision; INT8 rounds the weight that the smoothing divides."""
    weight = weight_of(graph, layer)
    if smoothing is not None and precision is Precision.INT8:
        weight = divided(weight, layer, smoothing.factor)
    return fake_quantize_weight(weight, layer.weight_axis, bits=precision.bits)


def weight_of(graph: Graph, layer: Layer) -> Floats:
    """Return the layer's weight, float32; read-only."""
    if layer.weight is None:
        raise KeyError(layer.name)
    return np.asarray(numpy_helper.to_array(graph.initializer(layer.weight)), dtype=np.float32)


def rounded_tensors(layer: Layer, scheme: Scheme) -> tuple[str, ...]:
    """Return the activations that INT8 rounds with the layer."""
    outputs = (layer.output,) if layer.op_type in scheme.quantized_outputs else ()
    return tuple(dict.fromkeys((*layer.inputs, *outputs)))


def _round_trip(
    source: str, target: str, span: tuple[float, float], scheme: Scheme, constants: dict[str, TensorProto]
) -> list[onnx.NodeProto]:
    symmetric = scheme.symmetric_activations
    scale, zero_point, _, _ = activation_grid(*span, bits=Precision.INT8.bits, symmetric=symmetric)
    grid = [f"{target}__scale", f"{target}__zero_point"]
    constants[grid[0]] = numpy_helper.from_array(np.asarray(scale, dtype=np.float32), grid[0])
    constants[grid[1]] = numpy_helper.from_array(np.asarray(zero_point, dtype=np.int8 if symmetric else np.uint8), grid[1])
    return [
        helper.make_node("QuantizeLinear", [source, *grid], [f"{target}__levels"]),
        helper.make_node("DequantizeLinear", [f"{target}__levels", *grid], [target]),
    ]
