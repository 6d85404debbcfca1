"""The pass that multiplies the inputs of low layers before they are rounded (case 10 of ``engine_builder.qdq.onnxruntime_dialect``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from calibration.algorithms.smooth_quant import Smoothing, divided
from calibration.graph.free_names import Names
from calibration.graph.layers import Layer
from engine_builder.qdq.emit.activations import add_initializer, values_of
from engine_builder.qdq.emit.int8_weights import float_initializer


class SmoothInputs(ir.passes.InPlacePass):
    """Puts a Mul between a tensor and the low layers that read it smoothed, and divides their weights.

    Requires: weights are float32 initializers of the main graph that no other layer uses. Ensures: ``low`` are the low layers as the passes
    behind this one must see them, and ``ranges`` has the ranges of the products.
    """

    def __init__(
        self, low: Sequence[Layer], ranges: Mapping[str, tuple[float, float]], smoothings: Sequence[Smoothing], names: Names
    ) -> None:
        """Keep what is to be smoothed; ``names`` hands out the names of new values."""
        self.low = tuple(low)
        self.ranges = dict(ranges)
        self._smoothings = smoothings
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the products, in the order of the smoothings."""
        nodes = {node.name: node for node in model.graph}
        values = values_of(model.graph)
        modified = False
        for smoothing in self._smoothings:
            readers = [layer for layer in self.low if layer.name in smoothing.layers]
            if not readers:
                continue
            product = self._add_product(model.graph, values[smoothing.tensor], smoothing)
            for layer in readers:
                weight = model.graph.initializers[str(layer.weight)]
                array = divided(float_initializer(model.graph, str(layer.weight), layer.name), layer, smoothing.factor)
                weight.const_value = ir.tensor(array, name=weight.name)
                nodes[layer.name].replace_input_with(0, product)
            inside = {layer.name for layer in readers}
            self.low = tuple(
                dataclasses.replace(layer, inputs=(str(product.name),)) if layer.name in inside else layer for layer in self.low
            )
            self.ranges[str(product.name)] = (smoothing.low, smoothing.high)
            modified = True
        return ir.passes.PassResult(model, modified=modified)

    def _add_product(self, graph: ir.Graph, value: ir.Value, smoothing: Smoothing) -> ir.Value:
        factor = add_initializer(graph, self._names.new(smoothing.tensor, "smoothing"), smoothing.factor)
        multiply = ir.node("Mul", [value, factor], name=self._names.new(smoothing.tensor, "Mul"))
        product = multiply.outputs[0]
        product.name, product.shape, product.dtype = self._names.new(smoothing.tensor, "smoothed"), value.shape, ir.DataType.FLOAT
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], multiply)
        else:
            graph.insert_after(producer, multiply)
        return product
