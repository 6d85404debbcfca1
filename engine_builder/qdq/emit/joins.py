"""The pass that lets the runtime join integers (case 11 of ``engine_builder.qdq.onnxruntime_dialect``)."""

from __future__ import annotations

import onnx_ir as ir

from calibration.graph.free_names import Names
from engine_builder.qdq.rules.placement import MOVING_OPS


class QuantizeJoins(ir.passes.InPlacePass):
    """Rounds the float inputs of a Concat before it instead of behind it, where some inputs come from a pair.

    onnxruntime joins integers only if every input comes from a pair. With one float input (behind a Resize, say) it dequantizes the
    others, joins floats and quantizes it all; a UNet took 1.1 times as long for that. No value changes: an input that only moves
    values of a pair takes that pair's grid, on which it is already; any other the grid of the Concat's own pair, on which it is
    rounded either way.
    """

    def __init__(self, names: Names) -> None:
        """Keep what hands out the names of new values."""
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the pairs."""
        found = [(node, pair) for node in model.graph if (pair := _pair_behind(node)) is not None and _is_partly_rounded(node)]
        for node, pair in found:
            added: dict[str, ir.Value] = {}
            for index, value in enumerate(node.inputs):
                if value is not None and _operator(value) != "DequantizeLinear":
                    name = str(value.name)
                    added[name] = added.get(name) or self._add_pair(model.graph, node, value, _pair_of(value) or pair)
                    node.replace_input_with(index, added[name])
        return ir.passes.PassResult(model, modified=bool(found))

    def _add_pair(self, graph: ir.Graph, before: ir.Node, value: ir.Value, like: ir.Node) -> ir.Value:
        tensor, grid = str(value.name), like.inputs[1:3]
        quantize = ir.node("QuantizeLinear", [value, *grid], name=self._names.new(tensor, "QuantizeJoined"))
        quantized = quantize.outputs[0]
        quantized.name, quantized.shape, quantized.type = self._names.new(tensor, "joined_quantized"), value.shape, like.outputs[0].type
        dequantize = ir.node("DequantizeLinear", [quantized, *grid], name=self._names.new(tensor, "DequantizeJoined"))
        result = dequantize.outputs[0]
        result.name, result.shape, result.dtype = self._names.new(tensor, "joined_dequantized"), value.shape, ir.DataType.FLOAT
        graph.insert_before(before, [quantize, dequantize])
        return result


def _pair_behind(node: ir.Node) -> ir.Node | None:
    """Return the QuantizeLinear that alone reads a Concat's output."""
    if node.op_type != "Concat" or node.domain not in ("", "ai.onnx") or node.outputs[0].is_graph_output():
        return None
    uses = tuple(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and uses[0].node.op_type == "QuantizeLinear" else None


def _is_partly_rounded(node: ir.Node) -> bool:
    """Return whether some inputs of a Concat are values of a pair, not all come from one directly, and none is a constant."""
    if any(value is None or value.is_initializer() or _operator(value) == "Constant" for value in node.inputs):
        return False
    values = [value for value in node.inputs if value is not None]
    return any(_pair_of(value) is not None for value in values) and any(_operator(value) != "DequantizeLinear" for value in values)


def _pair_of(value: ir.Value | None) -> ir.Node | None:
    """Return the QuantizeLinear whose values the tensor holds: dequantized, and perhaps moved."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "DequantizeLinear":
            source = producer.inputs[0].producer() if producer.inputs[0] is not None else None
            return source if source is not None and source.op_type == "QuantizeLinear" else None
        if not _moves(producer):
            return None
        value = producer.inputs[0]
    return None


def _moves(node: ir.Node) -> bool:
    """Return whether a node only moves, repeats or drops values of its first input."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Resize":  # extrapolation would bring in a constant
        mode = node.attributes.get_string("mode", "nearest")
        return mode == "nearest" and node.attributes.get_string("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"
    return node.op_type in MOVING_OPS


def _operator(value: ir.Value | None) -> str | None:
    producer = value.producer() if value is not None else None
    return producer.op_type if producer is not None else None
