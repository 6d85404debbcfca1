"""The pass that puts Q/DQ pairs on activations (cases 1 and 2 of ``engine_builder.qdq.onnxruntime_dialect``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.graph.free_names import Names
from calibration.graph.layers import Layer
from calibration.number_formats.precision import Scheme
from engine_builder.errors import BuildError
from engine_builder.qdq.emit.scales import activation_scale
from engine_builder.qdq.rules.placement import quantized_tensors


class QuantizeActivations(ir.passes.InPlacePass):
    """Adds one Q/DQ pair to each tensor that the quantized layers read or write.

    Requires: layers of the model, with unique node names. Ensures: each input slot of a quantized layer reads a DequantizeLinear.
    """

    def __init__(self, quantized: Sequence[Layer], ranges: Mapping[str, tuple[float, float]], scheme: Scheme, names: Names) -> None:
        """Keep what is to be placed; ``names`` hands out the names of new values."""
        self._quantized = tuple(quantized)
        self._ranges = ranges
        self._scheme = scheme
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the pairs, in the order of the layers."""
        values = values_of(model.graph)
        quantized_nodes = {layer.name for layer in self._quantized}
        tensors = quantized_tensors(self._quantized, self._scheme)
        for name, serves_all in tensors.items():
            if name not in values:
                raise BuildError(
                    f"tensor {name!r}: not in the model, but a layer reads or writes it", fix="find the layers in this very model"
                )
            self._add_pair(model.graph, values[name], None if serves_all else quantized_nodes)
        return ir.passes.PassResult(model, modified=bool(tensors))

    def ensures(self, model: ir.Model) -> None:
        """Check that no quantized layer reads a float tensor."""
        left = {layer.name: set(layer.inputs) for layer in self._quantized}
        for node in model.graph:
            for value in node.inputs:
                producer = value.producer() if value is not None else None
                is_quantized = producer is not None and producer.op_type == "DequantizeLinear"
                if value is not None and value.name in left.get(str(node.name), ()) and not is_quantized:
                    raise ir.passes.PostconditionError(f"layer {node.name!r} still reads {value.name!r} in float")

    def _add_pair(self, graph: ir.Graph, value: ir.Value, only: set[str] | None) -> None:
        tensor = str(value.name)
        grid = activation_scale(tensor, self._ranges, self._scheme)
        scale = add_initializer(graph, self._names.new(tensor, "scale"), grid.scale)
        zero_point = add_initializer(graph, self._names.new(tensor, "zero_point"), grid.zero_point)
        uses = [use for use in value.uses() if only is None or use.node.name in only]
        quantize = ir.node("QuantizeLinear", [value, scale, zero_point], name=self._names.new(tensor, "QuantizeLinear"))
        quantize.outputs[0].name = self._names.new(tensor, "quantized")
        quantize.outputs[0].shape, quantize.outputs[0].dtype = value.shape, ir.DataType.from_numpy(grid.zero_point.dtype)
        dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero_point], name=self._names.new(tensor, "DequantizeLinear"))
        result = dequantize.outputs[0]
        result.shape, result.dtype = value.shape, ir.DataType.FLOAT
        result.name = self._names.new(tensor, "dequantized")
        for use in uses:
            use.node.replace_input_with(use.idx, result)
        if only is None and value.is_graph_output():
            _take_over_output(graph, value, result, self._names)
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], [quantize, dequantize])
        else:
            graph.insert_after(producer, [quantize, dequantize])


def values_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return every value of the main graph by name."""
    found = {str(value.name): value for value in graph.inputs}
    found.update((str(value.name), value) for node in graph for value in node.outputs)
    return found


def add_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Return a new initializer of ``graph`` that holds ``array`` (any shape and dtype that ONNX has)."""
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def _take_over_output(graph: ir.Graph, value: ir.Value, result: ir.Value, names: Names) -> None:
    """Make ``result`` the graph output that ``value`` was, under the user's name."""
    name, value.name = str(value.name), names.new(str(value.name), "float")
    result.name, result.type, result.shape = name, value.type, value.shape
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = result
