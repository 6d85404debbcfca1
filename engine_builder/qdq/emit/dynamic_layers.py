"""The pass that lets matrix products round their inputs at run time (case 15 of ``engine_builder.qdq.onnxruntime_dialect``).

A product of x with a constant matrix becomes standard operators that onnxruntime fuses into one kernel when a session is opened, or into
one for the rounding and one for each product where several read one tensor:

    levels, s_x, zero_point = DynamicQuantizeLinear(x)
    y = Cast(MatMulInteger(levels, weight levels, zero_point)) * (s_x * s_w) [+ bias]

An LSTM becomes one operator of onnxruntime's own (``dynamic_lstm``). The node that ends the layer bears the layer's name, and y the name
that it had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.algorithms.gptq import Levels
from calibration.graph.free_names import Names
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.pair_bound import keeps_pair_bound
from calibration.number_formats.precision import Scheme
from calibration.number_formats.weight_scales import weight_step
from engine_builder.errors import BuildError
from engine_builder.qdq.emit.activations import add_initializer
from engine_builder.qdq.emit.dynamic_lstm import quantize_lstm
from engine_builder.qdq.emit.int8_weights import absorb_factors, float_initializer
from engine_builder.qdq.emit.scales import quantize_weight

PRODUCT = "MatMulInteger"  # what stands behind the layer's name in that of the node that multiplies, whose name the fused kernel keeps


class QuantizeDynamically(ir.passes.InPlacePass):
    """Replaces matrix products by integer ones whose inputs are rounded with the range that they have in the call.

    Requires: a MatMul or Gemm for each layer, with its input on the left as it is and a float32 matrix on the right, an initializer of the
    main graph that no other layer uses. Ensures: of the layers that read one tensor, the same three values serve all.
    """

    def __init__(self, layers: Sequence[tuple[Layer, LayerPrecision]], scheme: Scheme, names: Names, levels: Levels) -> None:
        """Keep what is to be replaced; ``names`` hands out the names of new values, ``levels`` holds values that are not the nearest."""
        self._layers = tuple(layers)
        self._scheme = scheme
        self._names = names
        self._levels = levels
        self._rounded: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = {}
        self.saturable: list[str] = []  # layers whose weights need kernels that add in 32 bits

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace the products, in the order of the layers."""
        nodes = {node.name: node for node in model.graph}
        for layer, choice in self._layers:
            if layer.name not in nodes:
                raise BuildError(f"layer {layer.name!r}: not in the model", fix="find the layers in this very model")
            if layer.kind is LayerKind.RECURRENT:
                if not quantize_lstm(model, nodes[layer.name], layer, choice.precision, self._scheme, self._names):
                    self.saturable.append(layer.name)
                continue
            self._replace(model.graph, nodes[layer.name], layer, choice)
        return ir.passes.PassResult(model, modified=bool(self._layers))

    def _replace(self, graph: ir.Graph, node: ir.Node, layer: Layer, choice: LayerPrecision) -> None:
        weight = float_initializer(graph, str(layer.weight), layer.name)
        bias = None if layer.bias is None else float_initializer(graph, layer.bias, layer.name)
        if node.op_type == "Gemm":
            weight, bias = absorb_factors(node, weight, bias)
        step = weight_step(weight, layer, choice.precision, self._scheme)
        quantized = quantize_weight(weight, layer.weight_axis, step, levels=self._levels.get((layer.name, choice.precision)))
        if not keeps_pair_bound(quantized.values, layer):
            self.saturable.append(layer.name)
        x = node.inputs[0]
        assert x is not None
        new, name = self._names.new, layer.name
        levels, scale, zero_point = self._rounded_input(graph, x)
        matrix = add_initializer(
            graph,
            new(str(layer.weight), "quantized"),
            np.ascontiguousarray(quantized.values.T if layer.weight_axis == 0 else quantized.values),
        )
        weight_scale = add_initializer(graph, new(str(layer.weight), "scale"), quantized.scale)
        product = ir.node(PRODUCT, [levels, matrix, zero_point], name=new(name, PRODUCT))
        cast = ir.node("Cast", [product.outputs[0]], attributes={"to": ir.DataType.FLOAT}, name=new(name, "Cast"))
        scales = ir.node("Mul", [scale, weight_scale], name=new(name, "scales"))
        result = ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=name if bias is None else new(name, "Mul"))
        made = [product, cast, scales, result]
        if bias is not None:
            added = add_initializer(graph, new(str(layer.bias), "added"), _as_vector(bias, quantized.scale.size))
            made.append(ir.node("Add", [result.outputs[0], added], name=name))
        for one in made[:-1]:
            one.outputs[0].name = new(str(one.name), "value")
        self._put(graph, node, made)
        for tensor in (layer.weight, layer.bias):
            old = None if tensor is None else graph.initializers.get(tensor)
            if tensor is not None and old is not None and not old.uses() and not old.is_graph_output() and not old.is_graph_input():
                del graph.initializers[tensor]

    def _rounded_input(self, graph: ir.Graph, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return the levels of a tensor, their scale and their zero point."""
        if x not in self._rounded:
            tensor = str(x.name)
            node = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=self._names.new(tensor, "DynamicQuantizeLinear"))
            levels, scale, zero_point = node.outputs
            for value, part in ((levels, "levels"), (scale, "dynamic_scale"), (zero_point, "dynamic_zero_point")):
                value.name = self._names.new(tensor, part)
            producer = x.producer()
            if producer is None:
                graph.insert_before(graph[0], node)
            else:
                graph.insert_after(producer, node)
            self._rounded[x] = levels, scale, zero_point
        return self._rounded[x]

    def _put(self, graph: ir.Graph, node: ir.Node, made: Sequence[ir.Node]) -> None:
        """Put nodes in the place of one whose only value the last of them makes."""
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [node.outputs[0]], [made[-1].outputs[0]])


def _as_vector(bias: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Return a bias that has one number for each channel as a vector, which the fused kernel adds; another one as it is."""
    return bias.reshape(-1) if bias.size == channels and bias.shape[-1] == channels else bias
