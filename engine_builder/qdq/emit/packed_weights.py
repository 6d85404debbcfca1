"""The pass that stores the weights of quantized layers in their formats (case 3 of ``engine_builder.qdq.tensorrt_dialect``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.graph.free_names import Names
from calibration.graph.layers import Layer
from calibration.number_formats.grids import block_scale, weight_scale
from calibration.number_formats.precision import Precision
from engine_builder.qdq.emit.activations import add_initializer
from engine_builder.qdq.emit.float_types import ARRAY_TYPES
from engine_builder.qdq.emit.int8_weights import absorb_factors, float_initializer
from engine_builder.qdq.emit.scales import typed_scale


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeight:
    """A weight as a DequantizeLinear reads it; ``zero`` is left out where it is None."""

    values: NDArray[np.generic]  # the weight's shape; int8, float8_e4m3fn or int4
    scale: NDArray[np.generic]  # (channels,), 0-d, or the weight's shape with the reduction axis divided by the block
    zero: NDArray[np.generic] | None
    attributes: Mapping[str, int]


def stored_weight(
    weight: NDArray[np.float32],
    layer: Layer,
    precision: Precision,
    kind: ir.DataType,
    *,
    reduction_axis: int,
    levels: NDArray[np.int8] | None = None,
) -> StoredWeight:
    """Return the weight in a low precision, with scales of the type that the layer is computed in.

    Args:
        weight: Any shape, float32; two axes for a format with blocks.
        layer: Whose weight it is.
        precision: Integers with blocks have one scale per block along the reduction axis, others one per output channel; floats one in all.
        kind: FLOAT, FLOAT16 or BFLOAT16.
        reduction_axis: Of the weight; for a format with blocks alone.
        levels: Integer values, of the weight's shape, in the place of the nearest.

    Raises:
        BuildError: A scale does not fit ``kind``.
    """
    tensor = str(layer.weight)
    dtype, grid, block = ARRAY_TYPES[kind], precision.grid, precision.weight_block
    if not precision.is_integer:
        number, zero = grid.activation(float(weight.min()), float(weight.max()), symmetric=True)
        scale = typed_scale(np.asarray(number), dtype, tensor)
        return StoredWeight(np.clip(weight / scale.astype(np.float32), -grid.top, grid.top).astype(grid.storage), scale, zero, {})
    if block is not None:
        scale = typed_scale(block_scale(weight, reduction_axis, block=block, bits=precision.bits), dtype, tensor)
        steps = np.round(weight / np.repeat(scale.astype(np.float32), block, axis=reduction_axis)) if levels is None else levels
        values = np.clip(steps, -grid.top, grid.top).astype(grid.storage)
        return StoredWeight(values, scale, None, {"axis": reduction_axis, "block_size": block})
    full = typed_scale(weight_scale(weight, layer.weight_axis, bits=precision.bits), dtype, tensor)
    nearest = np.clip(np.round(weight / full.astype(np.float32)), -grid.top, grid.top).astype(grid.storage)
    scale = full.reshape(-1) if layer.weight_axis is not None else full.reshape(())
    attributes = {"axis": layer.weight_axis} if layer.weight_axis is not None else {}
    return StoredWeight(nearest if levels is None else levels, scale, np.zeros(scale.shape, dtype=grid.storage), attributes)


class StoreWeights(ir.passes.InPlacePass):
    """Lets each quantized layer read its weight through a DequantizeLinear.

    Requires: weights are float32 initializers of the main graph that no other layer uses. Ensures: none of these layers reads one; the
    biases are what they were.
    """

    def __init__(
        self, quantized: Sequence[tuple[Layer, Precision]], types: Mapping[str, ir.DataType], names: Names, levels: Levels | None = None
    ) -> None:
        """Keep the quantized layers, the float type of every node, by name, and the integer weights that are not the nearest."""
        self._quantized = tuple((layer, precision) for layer, precision in quantized if layer.weight is not None)
        self._types = types
        self._names = names
        self._levels = levels or {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Store the weights, in the order of the layers."""
        nodes = {node.name: node for node in model.graph}
        for layer, precision in self._quantized:
            self._store(model.graph, nodes[layer.name], layer, precision)
        return ir.passes.PassResult(model, modified=bool(self._quantized))

    def _store(self, graph: ir.Graph, node: ir.Node, layer: Layer, precision: Precision) -> None:
        tensor, new = str(layer.weight), self._names.new
        weight = float_initializer(graph, tensor, layer.name)
        if node.op_type == "Gemm":
            bias = None if layer.bias is None else float_initializer(graph, layer.bias, layer.name)
            weight, scaled = absorb_factors(node, weight, bias)
            if layer.bias is not None and scaled is not None and scaled is not bias:
                _rewire(graph, node, layer.bias, add_initializer(graph, new(layer.bias, "scaled"), scaled))
        reduction_axis = 1 - (layer.weight_axis or 0)
        levels = self._levels.get((layer.name, precision))
        stored = stored_weight(weight, layer, precision, self._types[layer.name], reduction_axis=reduction_axis, levels=levels)
        inputs = [
            add_initializer(graph, new(tensor, "quantized"), stored.values),
            add_initializer(graph, new(tensor, "scale"), stored.scale),
        ]
        if stored.zero is not None:
            inputs.append(add_initializer(graph, new(tensor, "zero_point"), stored.zero))
        dequantize = ir.node("DequantizeLinear", inputs, attributes=dict(stored.attributes), name=new(tensor, "DequantizeLinear"))
        result = dequantize.outputs[0]
        result.name, result.dtype, result.shape = new(tensor, "dequantized"), self._types[layer.name], ir.Shape(weight.shape)
        graph.insert_before(node, dequantize)
        _rewire(graph, node, tensor, result)


def _rewire(graph: ir.Graph, node: ir.Node, tensor: str, replacement: ir.Value) -> None:
    old = graph.initializers[tensor]
    for use in [use for use in old.uses() if use.node is node]:
        node.replace_input_with(use.idx, replacement)
    if not old.uses() and not old.is_graph_output() and not old.is_graph_input():
        del graph.initializers[tensor]
