"""The pass that puts Q/DQ pairs in front of quantized layers (cases 1, 2 and 4 of ``engine_builder.qdq.tensorrt_dialect``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from calibration.graph.free_names import Names
from calibration.number_formats.precision import Precision
from engine_builder.errors import BuildError
from engine_builder.qdq.emit.activations import add_initializer
from engine_builder.qdq.emit.float_types import ARRAY_TYPES
from engine_builder.qdq.emit.scales import measured_range, typed_scale


@dataclass(frozen=True, slots=True)
class QuantizedInput:
    """One input of a quantized layer: what it reads there in the prepared model, and the format that it is to read it in."""

    node: str
    index: int
    tensor: str
    precision: Precision  # one that rounds inputs


class QuantizeInputs(ir.passes.InPlacePass):
    """Adds one Q/DQ pair to each tensor that quantized layers read, for each format and float type; it serves them alone.

    Requires: nodes in their float types already (``float_types``). Ensures: every such input is a DequantizeLinear's output.
    """

    def __init__(self, inputs: Sequence[QuantizedInput], ranges: Mapping[str, tuple[float, float]], names: Names) -> None:
        """Keep what is to be quantized, in the order of the layers, and the (lowest, highest) value of each tensor."""
        self._inputs = tuple(inputs)
        self._ranges = ranges
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the pairs."""
        nodes = {node.name: node for node in model.graph}
        pairs: dict[tuple[ir.Value, Precision], ir.Value] = {}
        for item in self._inputs:
            node = nodes[item.node]
            value = node.inputs[item.index]
            if value is None:
                raise BuildError(f"layer {item.node!r}: input {item.index} is missing", fix="find the layers in this very model")
            key = (value, item.precision)
            if key not in pairs:
                pairs[key] = self._pair(model.graph, value, item)
            node.replace_input_with(item.index, pairs[key])
        return ir.passes.PassResult(model, modified=bool(pairs))

    def ensures(self, model: ir.Model) -> None:
        """Check that no quantized layer reads a float tensor where it is to read a quantized one."""
        nodes = {node.name: node for node in model.graph}
        for item in self._inputs:
            value = nodes[item.node].inputs[item.index]
            producer = value.producer() if value is not None else None
            if producer is None or producer.op_type != "DequantizeLinear":
                raise ir.passes.PostconditionError(f"layer {item.node!r} still reads {item.tensor!r} in float")

    def _pair(self, graph: ir.Graph, value: ir.Value, item: QuantizedInput) -> ir.Value:
        tensor, stored = item.tensor, item.precision.grid.storage
        kind = value.dtype
        if kind is None or kind not in ARRAY_TYPES:
            raise BuildError(f"layer {item.node!r}: input {tensor!r} is {kind}, expected a float", fix="find the layers in this very model")
        number, zero_point = item.precision.grid.activation(*measured_range(tensor, self._ranges), symmetric=True)
        suffix = item.precision.value
        new = self._names.new
        scale = add_initializer(graph, new(tensor, f"{suffix}_scale"), typed_scale(np.asarray(number), ARRAY_TYPES[kind], tensor))
        zero = add_initializer(graph, new(tensor, f"{suffix}_zero_point"), zero_point)
        quantize = ir.node("QuantizeLinear", [value, scale, zero], name=new(tensor, f"{suffix}_QuantizeLinear"))
        quantize.outputs[0].name = new(tensor, f"{suffix}_quantized")
        quantize.outputs[0].shape, quantize.outputs[0].dtype = value.shape, ir.DataType.from_numpy(stored)
        dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero], name=new(tensor, f"{suffix}_DequantizeLinear"))
        result = dequantize.outputs[0]
        result.name, result.shape, result.dtype = new(tensor, f"{suffix}_dequantized"), value.shape, kind
        producer = value.producer()
        if producer is None:
            graph.insert_before(graph[0], [quantize, dequantize])
        else:
            graph.insert_after(producer, [quantize, dequantize])
        return result
