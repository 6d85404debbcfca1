"""One layer as a model of its own: in float with its weight fed, or in a low precision exactly as the explicit graph has it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.algorithms.smooth_quant import SmoothQuantScaling, divided
from calibration.execution.partition import FED_BYTES, Graph, Unit
from calibration.graph.layers import Layer, LayerKind
from calibration.graph.weightless import size_bytes
from calibration.number_formats.block_rounding import rounding_in_blocks
from calibration.number_formats.precision import Precision, Scheme
from calibration.number_formats.recurrent_weights import (
    DOMAIN,
    OPERATOR,
    PLAIN_INPUTS,
    RECURRENT,
    WEIGHT,
    integer_gates,
    takes_attribute,
)
from calibration.number_formats.weight_scales import weight_step

Floats = NDArray[np.float32]
Shifts = Mapping[tuple[str, Precision], Floats]  # what bias correction adds to a layer's output in a precision, (channels,)


def float_layer(graph: Graph, unit: Unit) -> onnx.ModelProto:
    """Return the layer in float; its weight and its bias, if it has them, are inputs."""
    fed = tuple(name for name in (unit.layer.weight, unit.layer.bias) if name is not None)
    return graph.piece(unit.start, unit.stop, outputs=[unit.layer.output], fed=fed)


def quantized_layer(
    graph: Graph,
    unit: Unit,
    precision: Precision,
    ranges: Mapping[str, tuple[float, float]],
    scheme: Scheme,
    smooth_quant: SmoothQuantScaling | None = None,
    levels: NDArray[np.int8] | None = None,
    shift: Floats | None = None,
) -> onnx.ModelProto:
    """Return the layer in a low precision.

    A format that rounds inputs rounds inputs, weight and (where the scheme says so) output; one for weights alone the weight. With a
    SmoothQuant scaling, a precision that takes one rounds the product of the input and the factors, and the divided weight.
    A dynamic format rounds inputs with the range that they have in the call, one of blocks each row of them in blocks; neither an output.
    Float types round all that the layer reads and writes. Integer weights are ``levels`` where those are given. The layer's own bias moves
    by ``shift``, (channels,); where the bias is that of an Add behind the layer, whoever runs the model adds it to the output.
    The rounded weight is a constant of the model, unless it is a large one: then it is an input, and the model holds no copy.
    """
    layer = unit.layer
    constants: dict[str, TensorProto] = {}
    fed = (layer.weight,) if layer.weight is not None and size_bytes(graph.initializer(layer.weight)) >= FED_BYTES else ()
    if layer.weight is not None and not fed:
        weight = rounded_weight(graph, layer, precision, smooth_quant, scheme, levels)
        constants[layer.weight] = numpy_helper.from_array(weight, layer.weight)
    if shift is not None and layer.bias is not None:
        bias = np.asarray(graph.array(layer.bias), dtype=np.float32)
        constants[layer.bias] = numpy_helper.from_array(np.asarray(bias + shift.reshape(bias.shape), dtype=np.float32), layer.bias)
    if not precision.is_quantized and precision is not Precision.FP32:
        return _cast_layer(graph, unit, precision, constants, fed)
    if layer.kind is LayerKind.RECURRENT:
        return _dynamic_lstm(graph, unit, precision, scheme)
    if precision.is_dynamic:
        return _dynamic_layer(graph, unit, constants, fed)
    if precision.rounds_blocks:
        targets = {name: graph.free_name(f"{name}__rounded") for name in dict.fromkeys(layer.inputs)}
        nodes = [node for name in targets for node in rounding_in_blocks(graph, layer, name, targets[name], precision, constants)]
        nodes += _renamed(graph, unit, targets)
        return graph.piece(unit.start, unit.stop, outputs=[layer.output], fed=fed, nodes=nodes, constants=constants)
    if not precision.rounds_inputs:
        return graph.piece(unit.start, unit.stop, outputs=[layer.output], fed=fed, constants=constants)
    rounds_output = layer.op_type in scheme.quantized_outputs
    nodes = []
    targets = {name: graph.free_name(f"{name}__rounded") for name in rounded_inputs(graph, layer, scheme)}
    for name in targets:
        source, span = name, span_of(graph, name, ranges, scheme)
        if smooth_quant is not None and name == smooth_quant.tensor and precision.takes_smooth_quant:
            source, span = graph.free_name(f"{name}__smoothed"), (smooth_quant.low, smooth_quant.high)
            factor = graph.free_name(f"{name}__factor")
            constants[factor] = numpy_helper.from_array(smooth_quant.factor, factor)
            nodes.append(helper.make_node("Mul", [name, factor], [source]))
        nodes += _round_trip(graph, source, targets[name], span, scheme, constants, precision)
    nodes += _renamed(graph, unit, targets)
    output = graph.free_name(f"{layer.output}__rounded_output") if rounds_output else layer.output
    if rounds_output:
        nodes += _round_trip(graph, layer.output, output, ranges[layer.output], scheme, constants, precision)
    model = graph.piece(unit.start, unit.stop, outputs=[output], fed=fed, nodes=nodes, constants=constants)
    return model if precision.is_integer else _at_opset(model, precision)


def rounded_weight(
    graph: Graph,
    layer: Layer,
    precision: Precision,
    smooth_quant: SmoothQuantScaling | None,
    scheme: Scheme,
    levels: NDArray[np.int8] | None = None,
) -> Floats:
    """Return the layer's weight after a round trip through the precision.

    Divided by the SmoothQuant scaling where the precision takes one.

    Args:
        graph: The model's.
        layer: The layer.
        precision: The precision.
        smooth_quant: Of the layer's input.
        scheme: How the target quantizes.
        levels: Integer weights, of the weight's shape, in the place of the nearest.
    """
    weight = weight_of(graph, layer)
    if smooth_quant is not None and precision.takes_smooth_quant:
        weight = divided(weight, layer, smooth_quant.factor)
    if not precision.is_integer:
        return precision.grid.round_weight(weight)
    step, grid = weight_step(weight, layer, precision, scheme), precision.grid
    if levels is not None:
        return np.asarray(levels * step, dtype=np.float32)
    rounded = np.asarray(weight / step)  # the one copy: a weight may be a large part of the model, and several are probed at once
    np.round(rounded, out=rounded)
    np.clip(rounded, grid.bottom, grid.top, out=rounded)
    rounded *= step
    return np.asarray(rounded, dtype=np.float32)


def weight_of(graph: Graph, layer: Layer) -> Floats:
    """Return the layer's weight, float32; read-only."""
    if layer.weight is None:
        raise KeyError(layer.name)
    return np.asarray(graph.array(layer.weight), dtype=np.float32)


def rounded_tensors(layer: Layer, scheme: Scheme) -> tuple[str, ...]:
    """Return the activations that are rounded with the layer, in a format that rounds inputs."""
    outputs = (layer.output,) if layer.op_type in scheme.quantized_outputs else ()
    return tuple(dict.fromkeys((*layer.inputs, *outputs)))


def rounded_inputs(graph: Graph, layer: Layer, scheme: Scheme) -> tuple[str, ...]:
    """Return the inputs that a quantized layer reads rounded: all, but of a sum that shares them those that a weighted layer reads too."""
    names = tuple(dict.fromkeys(layer.inputs))
    if not scheme.shares_sums or layer.kind is not LayerKind.RESIDUAL_ADD:
        return names
    shared = {name for unit in graph.units if unit.layer.kind is LayerKind.WEIGHTED for name in unit.layer.inputs}
    return tuple(name for name in names if name in shared)


def span_of(graph: Graph, name: str, ranges: Mapping[str, tuple[float, float]], scheme: Scheme) -> tuple[float, float]:
    """Return the range that a quantized layer rounds a tensor in."""
    if scheme.bounds_softmax and any(node.op_type == "Softmax" and name in node.output for node in graph.nodes):
        return 0.0, 1.0
    return ranges[name]


def _renamed(graph: Graph, unit: Unit, inputs: Mapping[str, str]) -> list[onnx.NodeProto]:
    """Return copies of the unit's nodes whose layer reads other tensors, by name, in the place of its own."""
    nodes = []
    for node in graph.nodes[unit.start : unit.stop]:
        clone = onnx.NodeProto()
        clone.CopyFrom(node)
        if node.name == unit.layer.name:
            for index, name in enumerate(clone.input):
                clone.input[index] = inputs.get(name, name)
        nodes.append(clone)
    return nodes


def _cast_layer(graph: Graph, unit: Unit, precision: Precision, constants: dict[str, TensorProto], fed: tuple[str, ...]) -> onnx.ModelProto:
    """Return the layer with its inputs, bias and output rounded to a 16-bit float; its sums stay float32, as a kernel's do."""
    layer = unit.layer
    if layer.bias is not None:
        own = constants.get(layer.bias)
        bias = np.asarray(graph.array(layer.bias) if own is None else numpy_helper.to_array(own), dtype=np.float32)
        constants[layer.bias] = numpy_helper.from_array(precision.grid.round_weight(bias), layer.bias)
    targets = {name: graph.free_name(f"{name}__rounded") for name in layer.inputs}
    nodes = [node for name, target in targets.items() for node in _cast_trip(graph, name, target, precision)]
    nodes += _renamed(graph, unit, targets)
    output = graph.free_name(f"{layer.output}__rounded_output")
    nodes += _cast_trip(graph, layer.output, output, precision)
    return graph.piece(unit.start, unit.stop, outputs=[output], fed=fed, nodes=nodes, constants=constants)


def _dynamic_layer(graph: Graph, unit: Unit, constants: dict[str, TensorProto], fed: tuple[str, ...]) -> onnx.ModelProto:
    """Return the layer with its inputs rounded to 8-bit integers by the operator that engines round them with."""
    targets = {name: graph.free_name(f"{name}__rounded") for name in dict.fromkeys(unit.layer.inputs)}
    nodes = []
    for name, target in targets.items():
        levels, *grid = (graph.free_name(f"{target}__{part}") for part in ("levels", "scale", "zero_point"))
        nodes.append(helper.make_node("DynamicQuantizeLinear", [name], [levels, *grid]))
        nodes.append(helper.make_node("DequantizeLinear", [levels, *grid], [target]))
    nodes += _renamed(graph, unit, targets)
    return graph.piece(unit.start, unit.stop, outputs=[unit.layer.output], fed=fed, nodes=nodes, constants=constants)


def _dynamic_lstm(graph: Graph, unit: Unit, precision: Precision, scheme: Scheme) -> onnx.ModelProto:
    """Return an LSTM as the operator that engines have, which rounds its hidden state at each step."""
    node = graph.nodes[unit.start]
    inputs = [*node.input, *[""] * (PLAIN_INPUTS - len(node.input))]
    constants: dict[str, TensorProto] = {}
    for index in (WEIGHT, RECURRENT):
        weight = np.asarray(graph.array(inputs[index]), dtype=np.float32)
        gates = integer_gates(weight, unit.layer, precision, scheme)
        names = [graph.free_name(f"{unit.layer.name}__{index}_{part}") for part in ("levels", "scale", "zero_point")]
        arrays: tuple[NDArray[np.generic], ...] = (gates.levels, gates.scale, gates.zero_point)
        constants |= {name: numpy_helper.from_array(array, name) for name, array in zip(names, arrays, strict=True)}
        inputs[index] = names[0]
        inputs += names[1:]
    quantized = helper.make_node(OPERATOR, inputs, list(node.output), name=node.name, domain=DOMAIN)
    quantized.attribute.extend(attribute for attribute in node.attribute if takes_attribute(attribute.name))
    model = graph.piece(unit.start, unit.stop, outputs=[unit.layer.output], nodes=[quantized], constants=constants)
    if all(item.domain != DOMAIN for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def _cast_trip(graph: Graph, source: str, target: str, precision: Precision) -> list[onnx.NodeProto]:
    half = graph.free_name(f"{target}__half")
    return [
        helper.make_node("Cast", [source], [half], to=precision.element_type),
        helper.make_node("Cast", [half], [target], to=TensorProto.FLOAT),
    ]


def _at_opset(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Raise the model, which holds one layer alone, to the opset that stores the format; layers mean the same in it."""
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, precision.least_opset)
    model.ir_version = max(model.ir_version, helper.find_min_ir_version_for([helper.make_opsetid("", precision.least_opset)]))
    return model


def _round_trip(
    graph: Graph,
    source: str,
    target: str,
    span: tuple[float, float],
    scheme: Scheme,
    constants: dict[str, TensorProto],
    precision: Precision,
) -> list[onnx.NodeProto]:
    grid = [graph.free_name(f"{target}__{part}") for part in ("scale", "zero_point")]
    levels = graph.free_name(f"{target}__levels")
    scale, zero_point = precision.grid.activation(*span, symmetric=scheme.symmetric_activations)
    constants[grid[1]] = numpy_helper.from_array(zero_point, grid[1])
    constants[grid[0]] = numpy_helper.from_array(np.asarray(scale, dtype=np.float32), grid[0])
    return [
        helper.make_node("QuantizeLinear", [source, *grid], [levels]),
        helper.make_node("DequantizeLinear", [levels, *grid], [target]),
    ]
