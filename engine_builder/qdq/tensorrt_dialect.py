"""(model, layers, assignment, ranges) -> the explicit model that TensorRT builds: every type and every rounding written into the graph.

TensorRT engines are strongly typed: what the graph says is what runs. A layer is *quantized* when it is given INT8, FP8 or INT4; a *pair*
is a QuantizeLinear and a DequantizeLinear on one tensor. INT8 is signed, symmetric, with zero point 0; FP8 is E4M3.

1. *Inputs.* Each input of a layer in INT8 or FP8 is read through a pair with one scale for the whole tensor, right in front of the layer.
   All layers that read a tensor in one format share one pair; every other reader, INT4 layers and graph outputs included, reads the tensor
   itself. Outputs and biases are never quantized.
2. *Sums* compute nothing in 8 bits. A residual add in INT8 or FP8 reads the pair of a tensor that a weighted layer reads in that format, so
   that the tensor is stored once, in 8 bits; its other input stays as it is.
3. *Weights.* INT8: one scale per output channel. FP8: one scale. INT4: blocks of 32 along the reduction axis, the weight alone. They are
   stored as integers behind a DequantizeLinear, the nearest or those that are given; a Gemm's alpha and beta are multiplied in first.
4. *Ranges.* A tensor that only moves the values of another takes its range (``placement.ranges_of_moved_tensors``); the output of a Softmax
   has the range [0, 1]. Scales are at least 1e-6, in the float type of what they scale.
5. *Types.* Everything is computed in the baseline's type, the insides of quantized layers too; a layer in FP32, BF16 or FP16 is computed in
   that. A node with a float type of its own (``floats``: where the baseline needed a float fallback) has that in the baseline's place, its
   layer quantized or not. Constants are converted for each type in which they are read. Integer and boolean tensors are left alone, and so
   are the graphs inside If, Loop and Scan, which stay in float32. TensorRT-RTX 1.7 still runs some lone FP32 layers between FP16 ones in
   FP16, most of all 1x1 convolutions and matrix products; its report of the build says which.
6. *Float32 FP32 fallback regions.* What FP16 cannot hold stays in float32, whatever was asked for, and so do sizes, positions and recurrent
   operators with lengths in any engine: ``engine_builder.qdq.rules.fp16_overflow``. So does a ConvTranspose in a BF16 engine, which the
   builder does not have.
7. *Borders.* Graph inputs and outputs keep their names, types and axes: Casts stand where types meet, one for each tensor and type. uint8
   tensors are cast before they are moved (``early_casts``); an output that is an input gets a name of its own (``echoes``).
8. *Together or not at all.* The matmuls of an attention, and residual adds without a stored input: ``engine_builder.qdq.rules.legalize``.
9. *Smoothed inputs* of INT8 layers are multiplied, in the baseline's type, before they are rounded, as for ONNX Runtime.

The opset is raised where a type needs it: 19 for half-precision scales and FP8, 21 for INT4, 22 for BF16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from calibration.algorithms.gptq import Levels
from calibration.algorithms.smooth_quant import SmoothQuantScaling
from calibration.graph.free_names import Names, names_in
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.qdq.adapt.early_casts import CastBeforeMoves, narrow_types
from engine_builder.qdq.adapt.loops import WriteConditions
from engine_builder.qdq.adapt.slice_axes import WriteSliceAxes
from engine_builder.qdq.emit.activations import values_of
from engine_builder.qdq.emit.float_types import ConvertFloats
from engine_builder.qdq.emit.packed_weights import StoreWeights
from engine_builder.qdq.emit.smooth_quant import ApplySmoothQuant
from engine_builder.qdq.emit.typed_inputs import QuantizedInput, QuantizeInputs
from engine_builder.qdq.graph.opsets import at_opset
from engine_builder.qdq.rules.echoes import SeparateEchoes
from engine_builder.qdq.rules.fp16_overflow import float32_in_any_engine, float32_nodes
from engine_builder.qdq.rules.legalize import legalize, stored_inputs
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors

_TYPES = {precision: ir.DataType(precision.element_type) for precision in Precision if not precision.is_quantized}


def rewrite_tensorrt(
    prepared: onnx.ModelProto,
    layers: Sequence[Layer],
    assignment: Mapping[str, Precision],
    ranges: Mapping[str, tuple[float, float]],
    smooth_quants: Sequence[SmoothQuantScaling] = (),
    *,
    baseline: Precision = Precision.FP16,
    levels: Levels | None = None,
    floats: Mapping[str, Precision] | None = None,
) -> onnx.ModelProto:
    """Return the explicit model; the prepared model is left as it is.

    Args:
        prepared: Result of ``calibration.graph_passes.normalize.prepare``: float32, opset 17 or later.
        layers: ``find_layers(prepared)``.
        assignment: Precision by layer name; a layer that is missing has the baseline's.
        ranges: (lowest, highest) by tensor name, for the inputs and outputs of every layer.
        smooth_quants: Tensors to smooth for the layers that read them, where those are in INT8.
        baseline: FP16, BF16 or FP32.
        levels: Integer weights in the place of the nearest.
        floats: FP16, BF16 or FP32 by the name of a node that has another float type than the baseline's.

    Raises:
        BuildError: An unknown layer, a precision that a layer may not take, a tensor without a range, or a model that cannot be retyped.
    """
    precisions = legalize(prepared, layers, assignment, baseline).precisions
    own = floats or {}
    model = at_opset(prepared, max(kind.least_opset for kind in {*precisions.values(), *own.values(), baseline}))  # edited in place below
    _check_layers(model.graph, layers)
    names = Names(names_in(model))
    SeparateEchoes(names)(model)
    WriteConditions(names)(model)
    WriteSliceAxes(names)(model)
    for narrow in narrow_types(model.graph):
        CastBeforeMoves(names, narrow)(model)
    smooth = ApplySmoothQuant(
        [layer for layer in layers if precisions[layer.name].takes_smooth_quant], _ranges(prepared, ranges), smooth_quants, names
    )
    smooth(model)
    smoothed = {layer.name: layer for layer in smooth.quantized}
    layers = [smoothed.get(layer.name, layer) for layer in layers]
    chosen = {name: precision for name, precision in precisions.items() if name in assignment}
    types = _node_types(model.graph, layers, chosen, smooth.ranges, baseline, own)
    inputs = _quantized_inputs(model.graph, layers, precisions)
    StoreWeights([(layer, precisions[layer.name]) for layer in layers if precisions[layer.name].is_quantized], types, names, levels)(model)
    ConvertFloats(types, names)(model)
    QuantizeInputs(inputs, smooth.ranges, names)(model)
    explicit: onnx.ModelProto = ir.to_proto(model)
    del explicit.graph.value_info[:]  # the notes of inner types are the prepared model's
    return explicit


def kept_in_float32(
    prepared: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], *, baseline: Precision = Precision.FP16
) -> dict[str, str]:
    """Return the reason of each node that stays in float32 where it would be in 16 bits, by node name (case 6).

    Args:
        prepared: As for ``rewrite_tensorrt``.
        ranges: As for ``rewrite_tensorrt``.
        baseline: FP16 or BF16; FP32 has no such nodes.
    """
    if baseline is Precision.FP32:
        return {}
    graph = ir.from_proto(prepared).graph
    return float32_in_any_engine(graph) | (float32_nodes(graph, ranges) if baseline is Precision.FP16 else {})


def _check_layers(graph: ir.Graph, layers: Sequence[Layer]) -> None:
    nodes = {node.name for node in graph}
    missing = next((layer.name for layer in layers if layer.name not in nodes), None)
    if missing is not None:
        raise BuildError(f"layer {missing!r}: not in the model", fix="find the layers in this very model")


def _ranges(prepared: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return the ranges of case 4."""
    bounded = {name: (0.0, 1.0) for node in prepared.graph.node if node.op_type == "Softmax" for name in node.output}
    return ranges_of_moved_tensors(prepared, {**ranges, **bounded})


def _node_types(
    graph: ir.Graph,
    layers: Sequence[Layer],
    chosen: Mapping[str, Precision],
    ranges: Mapping[str, tuple[float, float]],
    baseline: Precision,
    floats: Mapping[str, Precision],
) -> dict[str, ir.DataType]:
    """Return the float type of every node (cases 5 and 6); ``chosen`` has the precisions that were asked for, as legalized."""
    types = {str(node.name): _TYPES[floats.get(str(node.name), baseline)] for node in graph}
    for layer in layers:
        if chosen.get(layer.name) in _TYPES:
            types.update(dict.fromkeys(layer.nodes, _TYPES[chosen[layer.name]]))
    if ir.DataType.FLOAT16 in types.values():
        for name in float32_nodes(graph, ranges):
            if types[name] is ir.DataType.FLOAT16:
                types[name] = ir.DataType.FLOAT
    types.update(dict.fromkeys(float32_in_any_engine(graph), ir.DataType.FLOAT))
    for node in graph:
        if node.op_type == "ConvTranspose" and types[str(node.name)] is ir.DataType.BFLOAT16:
            types[str(node.name)] = ir.DataType.FLOAT
    return types


def _quantized_inputs(graph: ir.Graph, layers: Sequence[Layer], precisions: Mapping[str, Precision]) -> list[QuantizedInput]:
    """Return the inputs of cases 1 and 2 in the order of the layers."""
    nodes, values = {node.name: node for node in graph}, values_of(graph)
    found = []
    for layer in layers:
        precision = precisions[layer.name]
        if not precision.rounds_inputs:
            continue
        tensors = stored_inputs(layer, layers, precisions) if layer.kind is LayerKind.RESIDUAL_ADD else layer.inputs
        for index, value in enumerate(nodes[layer.name].inputs):
            if value is not None and value.name in tensors and value.name in values:
                found.append(QuantizedInput(layer.name, index, str(value.name), precision))
    return found
