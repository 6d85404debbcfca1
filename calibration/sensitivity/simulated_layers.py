"""One layer as a model of its own: in float with its weight fed, or in a low precision exactly as the explicit graph has it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration.algorithms.smooth_quant import Smoothing, divided
from calibration.execution.partition import FED_BYTES, Graph, Unit
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import (
    Precision,
    Scheme,
    activation_grid,
    fake_cast,
    fake_quantize_fp8,
    fake_quantize_weight,
    fp8_scale,
)
from calibration.number_formats.weight_scales import INTEGERS, weight_step

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
    levels: NDArray[np.int8] | None = None,
) -> onnx.ModelProto:
    """Return the layer in a low precision.

    INT8 rounds inputs, weight and (where the scheme says so) output; narrower integers round the weight alone. With a smoothing, INT8
    rounds the product of the input and the factors, and the divided weight. A strongly typed scheme has FP8, FP16 and BF16 besides, and
    sums that share what they round (``calibration.number_formats.precision.Scheme``). Integer weights are ``levels`` where those are given.
    The rounded weight is a constant of the model, unless it is a large one: then it is an input, and the model holds no copy.
    """
    layer = unit.layer
    constants: dict[str, TensorProto] = {}
    fed = (layer.weight,) if layer.weight is not None and graph.initializer(layer.weight).ByteSize() >= FED_BYTES else ()
    if layer.weight is not None and not fed:
        weight = rounded_weight(graph, layer, precision, smoothing, scheme, levels)
        constants[layer.weight] = numpy_helper.from_array(weight, layer.weight)
    if scheme.strongly_typed and precision in _CASTS:
        return _cast_layer(graph, unit, precision, constants, fed)
    rounds_inputs = precision is Precision.INT8 or (scheme.strongly_typed and precision is Precision.FP8)
    if not rounds_inputs:
        return graph.piece(unit.start, unit.stop, outputs=[layer.output], fed=fed, constants=constants)
    rounds_output = layer.op_type in scheme.quantized_outputs
    nodes = []
    targets = {name: graph.free_name(f"{name}__rounded") for name in rounded_inputs(graph, layer, scheme)}
    for name in targets:
        source, span = name, span_of(graph, name, ranges, scheme)
        if smoothing is not None and name == smoothing.tensor and precision is Precision.INT8:
            source, span = graph.free_name(f"{name}__smoothed"), (smoothing.low, smoothing.high)
            factor = graph.free_name(f"{name}__factor")
            constants[factor] = numpy_helper.from_array(smoothing.factor, factor)
            nodes.append(helper.make_node("Mul", [name, factor], [source]))
        nodes += _round_trip(graph, source, targets[name], span, scheme, constants, precision)
    nodes += _renamed(graph, unit, targets)
    output = graph.free_name(f"{layer.output}__rounded_output") if rounds_output else layer.output
    if rounds_output:
        nodes += _round_trip(graph, layer.output, output, ranges[layer.output], scheme, constants, precision)
    model = graph.piece(unit.start, unit.stop, outputs=[output], fed=fed, nodes=nodes, constants=constants)
    return _with_fp8_operators(model) if precision is Precision.FP8 else model


def rounded_weight(
    graph: Graph, layer: Layer, precision: Precision, smoothing: Smoothing | None, scheme: Scheme, levels: NDArray[np.int8] | None = None
) -> Floats:
    """Return the layer's weight after a round trip through the precision; INT8 rounds the weight that the smoothing divides.

    Args:
        graph: The model's.
        layer: The layer.
        precision: The precision.
        smoothing: Of the layer's input.
        scheme: How the target quantizes.
        levels: Integer weights, of the weight's shape, in the place of the nearest.
    """
    weight = weight_of(graph, layer)
    if smoothing is not None and precision is Precision.INT8:
        weight = divided(weight, layer, smoothing.factor)
    if scheme.strongly_typed:
        if precision in (Precision.FP32, *_CASTS):
            return fake_cast(weight, precision)
        if precision is Precision.FP8:
            return fake_quantize_fp8(weight, float(weight.min()), float(weight.max()))
    if precision not in INTEGERS:
        return fake_quantize_weight(weight, layer.weight_axis, bits=precision.bits)
    step = weight_step(weight, layer, precision, scheme)
    top = 2 ** (precision.bits - 1) - 1
    return np.asarray((np.clip(np.round(weight / step), -top, top) if levels is None else levels) * step, dtype=np.float32)


def weight_of(graph: Graph, layer: Layer) -> Floats:
    """Return the layer's weight, float32; read-only."""
    if layer.weight is None:
        raise KeyError(layer.name)
    return np.asarray(numpy_helper.to_array(graph.initializer(layer.weight)), dtype=np.float32)


def rounded_tensors(layer: Layer, scheme: Scheme) -> tuple[str, ...]:
    """Return the activations that INT8 rounds with the layer."""
    outputs = (layer.output,) if layer.op_type in scheme.quantized_outputs else ()
    return tuple(dict.fromkeys((*layer.inputs, *outputs)))


def rounded_inputs(graph: Graph, layer: Layer, scheme: Scheme) -> tuple[str, ...]:
    """Return the inputs that a low layer reads rounded: all, but of a strongly typed sum those that a weighted layer reads too."""
    names = tuple(dict.fromkeys(layer.inputs))
    if not scheme.strongly_typed or layer.kind is not LayerKind.RESIDUAL_ADD:
        return names
    shared = {name for unit in graph.units if unit.layer.kind is LayerKind.WEIGHTED for name in unit.layer.inputs}
    return tuple(name for name in names if name in shared)


def span_of(graph: Graph, name: str, ranges: Mapping[str, tuple[float, float]], scheme: Scheme) -> tuple[float, float]:
    """Return the range that a low layer rounds a tensor in."""
    if scheme.strongly_typed and any(node.op_type == "Softmax" and name in node.output for node in graph.nodes):
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
        bias = np.asarray(numpy_helper.to_array(graph.initializer(layer.bias)), dtype=np.float32)
        constants[layer.bias] = numpy_helper.from_array(fake_cast(bias, precision), layer.bias)
    targets = {name: graph.free_name(f"{name}__rounded") for name in layer.inputs}
    nodes = [node for name, target in targets.items() for node in _cast_trip(graph, name, target, precision)]
    nodes += _renamed(graph, unit, targets)
    output = graph.free_name(f"{layer.output}__rounded_output")
    nodes += _cast_trip(graph, layer.output, output, precision)
    return graph.piece(unit.start, unit.stop, outputs=[output], fed=fed, nodes=nodes, constants=constants)


def _cast_trip(graph: Graph, source: str, target: str, precision: Precision) -> list[onnx.NodeProto]:
    half = graph.free_name(f"{target}__half")
    return [
        helper.make_node("Cast", [source], [half], to=_CASTS[precision]),
        helper.make_node("Cast", [half], [target], to=TensorProto.FLOAT),
    ]


def _with_fp8_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise the model, which holds one layer alone, to the opset that has FP8; layers mean the same in it."""
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, _FP8_OPSET)
    model.ir_version = max(model.ir_version, _FP8_IR_VERSION)
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
    if precision is Precision.FP8:
        scale = fp8_scale(*span)
        constants[grid[1]] = helper.make_tensor(grid[1], TensorProto.FLOAT8E4M3FN, [], [0.0])
    else:
        symmetric = scheme.symmetric_activations
        scale, zero_point, _, _ = activation_grid(*span, bits=Precision.INT8.bits, symmetric=symmetric)
        constants[grid[1]] = numpy_helper.from_array(np.asarray(zero_point, dtype=np.int8 if symmetric else np.uint8), grid[1])
    constants[grid[0]] = numpy_helper.from_array(np.asarray(scale, dtype=np.float32), grid[0])
    return [
        helper.make_node("QuantizeLinear", [source, *grid], [levels]),
        helper.make_node("DequantizeLinear", [levels, *grid], [target]),
    ]


_CASTS = {Precision.FP16: TensorProto.FLOAT16, Precision.BF16: TensorProto.BFLOAT16}
_FP8_OPSET, _FP8_IR_VERSION = 19, 9
