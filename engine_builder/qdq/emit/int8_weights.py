"""The pass that turns weights and biases of quantized layers into integers.

It does cases 3, 4 and 7 of ``engine_builder.qdq.onnxruntime_dialect``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.graph.free_names import Names
from calibration.graph.layers import Layer
from calibration.number_formats.pair_bound import keeps_pair_bound
from calibration.number_formats.precision import Precision, Scheme
from calibration.number_formats.weight_scales import weight_step
from engine_builder.errors import BuildError
from engine_builder.qdq.emit.activations import add_initializer
from engine_builder.qdq.emit.scales import ActivationScale, activation_scale, quantize_bias, quantize_weight


class QuantizeWeights(ir.passes.InPlacePass):
    """Replaces the weight of each quantized layer by int8 values and a DequantizeLinear, and its bias by int32 where the scheme says so.

    Requires: weights and biases are float32 initializers of the main graph that no other layer uses.
    """

    def __init__(
        self, quantized: Sequence[Layer], ranges: Mapping[str, tuple[float, float]], scheme: Scheme, names: Names, levels: Levels
    ) -> None:
        """Keep what is to be replaced; ``names`` hands out the names of new values, ``levels`` holds values that are not the nearest."""
        self._quantized = tuple(layer for layer in quantized if layer.weight is not None)
        self._ranges = ranges
        self._scheme = scheme
        self._names = names
        self._levels = levels
        self.saturable: list[str] = []  # layers whose weights need kernels that add in 32 bits

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace the weights, in the order of the layers."""
        nodes = {node.name: node for node in model.graph}
        for layer in self._quantized:
            if layer.name not in nodes:
                raise BuildError(f"layer {layer.name!r}: not in the model", fix="find the layers in this very model")
            self._quantize(model.graph, nodes[layer.name], layer)
        return ir.passes.PassResult(model, modified=bool(self._quantized))

    def _quantize(self, graph: ir.Graph, node: ir.Node, layer: Layer) -> None:
        weight = float_initializer(graph, str(layer.weight), layer.name)
        bias = None if layer.bias is None else float_initializer(graph, layer.bias, layer.name)
        original_bias = bias
        if node.op_type == "Gemm":
            weight, bias = absorb_factors(node, weight, bias)
        integer_bias = bias is not None and layer.op_type in self._scheme.quantized_outputs and _is_per_channel(bias, weight, node)
        grid: ActivationScale | None = activation_scale(layer.inputs[0], self._ranges, self._scheme) if integer_bias else None
        quantized = quantize_weight(
            weight,
            layer.weight_axis,
            weight_step(weight, layer, Precision.INT8, self._scheme),
            bias=bias if integer_bias else None,
            input_scale=grid.scale if grid else None,
            levels=self._levels.get((layer.name, Precision.INT8)),
        )
        if not keeps_pair_bound(quantized.values, layer):
            self.saturable.append(layer.name)
        self._replace(graph, node, str(layer.weight), quantized.values, quantized.scale, layer.weight_axis)
        if bias is None or layer.bias is None:
            return
        if grid is not None:
            values, scale = quantize_bias(bias.reshape(-1), grid.scale, quantized.scale)
            self._replace(graph, node, layer.bias, values, scale, 0)
        elif bias is not original_bias:
            self._rewire(graph, node, layer.bias, add_initializer(graph, self._names.new(layer.bias, "scaled"), bias))

    def _replace(
        self, graph: ir.Graph, node: ir.Node, tensor: str, values: NDArray[np.generic], scale: NDArray[np.float32], axis: int | None
    ) -> None:
        """Let ``node`` read ``values`` through a DequantizeLinear in the place of the initializer ``tensor``."""
        new = self._names.new
        zeros = np.zeros(scale.shape, dtype=values.dtype)
        inputs = [
            add_initializer(graph, new(tensor, "quantized"), values),
            add_initializer(graph, new(tensor, "scale"), scale),
            add_initializer(graph, new(tensor, "zero_point"), zeros),
        ]
        attributes = {"axis": axis} if scale.ndim and axis is not None else {}
        dequantize = ir.node("DequantizeLinear", inputs, attributes=attributes, name=new(tensor, "DequantizeLinear"))
        result = dequantize.outputs[0]
        result.name, result.dtype, result.shape = new(tensor, "dequantized"), ir.DataType.FLOAT, ir.Shape(values.shape)
        graph.insert_before(node, dequantize)
        self._rewire(graph, node, tensor, result)

    def _rewire(self, graph: ir.Graph, node: ir.Node, tensor: str, replacement: ir.Value) -> None:
        old = graph.initializers[tensor]
        for use in [use for use in old.uses() if use.node is node]:
            node.replace_input_with(use.idx, replacement)
        if not old.uses() and not old.is_graph_output() and not old.is_graph_input():
            del graph.initializers[tensor]


def float_initializer(graph: ir.Graph, name: str, layer: str) -> NDArray[np.float32]:
    """Return the float32 values of the initializer ``name``.

    Raises:
        BuildError: There is no such initializer, or it is not float32.
    """
    value = graph.initializers.get(name)
    if value is None or value.const_value is None or value.const_value.dtype is not ir.DataType.FLOAT:
        raise BuildError(f"layer {layer!r}: weight or bias {name!r} is not a float32 initializer", fix="prepare the model first")
    return np.asarray(value.const_value.numpy(), dtype=np.float32)


def _is_per_channel(bias: NDArray[np.float32], weight: NDArray[np.float32], node: ir.Node) -> bool:
    """Return whether the bias has one number for each output channel, so that an integer kernel can add it to its accumulators."""
    if node.op_type != "Gemm":
        return bias.ndim == 1
    channels = weight.shape[0 if node.attributes.get_int("transB", 0) else 1]
    return bias.shape in ((channels,), (1, channels))


def absorb_factors(
    node: ir.Node, weight: NDArray[np.float32], bias: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return a Gemm's weight times alpha and its bias times beta, and set both factors to 1 (case 7)."""
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    if alpha != 1.0:
        weight = weight * np.float32(alpha)
        node.attributes["alpha"] = ir.AttrFloat32("alpha", 1.0)
    if beta != 1.0 and bias is not None:
        bias = bias * np.float32(beta)
        node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    return weight, bias
