"""The pass that multiplies the inputs of quantized layers before they are rounded.

It is case 10 of ``engine_builder.qdq.onnxruntime_dialect``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from calibration.algorithms.smooth_quant import SmoothQuantScaling, divided
from calibration.graph.free_names import Names
from calibration.graph.layers import Layer
from engine_builder.qdq.emit.activations import add_initializer, values_of
from engine_builder.qdq.emit.int8_weights import float_initializer


class ApplySmoothQuant(ir.passes.InPlacePass):
    """Puts a Mul between a tensor and the quantized layers that read it smoothed, and divides their weights.

    Requires: weights are float32 initializers of the main graph that no other layer uses. Ensures: ``quantized`` are the quantized layers
    as the passes behind this one must see them, and ``ranges`` has the ranges of the products.
    """

    def __init__(
        self,
        quantized: Sequence[Layer],
        ranges: Mapping[str, tuple[float, float]],
        smooth_quants: Sequence[SmoothQuantScaling],
        names: Names,
    ) -> None:
        """Keep what is to be smoothed; ``names`` hands out the names of new values."""
        self.quantized = tuple(quantized)
        self.ranges = dict(ranges)
        self._smooth_quants = smooth_quants
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the products, in the order of the SmoothQuant scalings."""
        nodes = {node.name: node for node in model.graph}
        values = values_of(model.graph)
        modified = False
        for smooth_quant in self._smooth_quants:
            readers = [layer for layer in self.quantized if layer.name in smooth_quant.layers]
            if not readers:
                continue
            product = self._add_product(model.graph, values[smooth_quant.tensor], smooth_quant)
            for layer in readers:
                weight = model.graph.initializers[str(layer.weight)]
                array = divided(float_initializer(model.graph, str(layer.weight), layer.name), layer, smooth_quant.factor)
                weight.const_value = ir.tensor(array, name=weight.name)
                nodes[layer.name].replace_input_with(0, product)
            inside = {layer.name for layer in readers}
            self.quantized = tuple(
                dataclasses.replace(layer, inputs=(str(product.name),)) if layer.name in inside else layer for layer in self.quantized
            )
            self.ranges[str(product.name)] = (smooth_quant.low, smooth_quant.high)
            modified = True
        return ir.passes.PassResult(model, modified=modified)

    def _add_product(self, graph: ir.Graph, value: ir.Value, smooth_quant: SmoothQuantScaling) -> ir.Value:
        factor = add_initializer(graph, self._names.new(smooth_quant.tensor, "smoothing"), smooth_quant.factor)
        multiply = ir.node("Mul", [value, factor], name=self._names.new(smooth_quant.tensor, "Mul"))
        product = multiply.outputs[0]
        product.name, product.shape, product.dtype = self._names.new(smooth_quant.tensor, "smoothed"), value.shape, ir.DataType.FLOAT
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], multiply)
        else:
            graph.insert_after(producer, multiply)
        return product
