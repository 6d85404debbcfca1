"""The pass that keeps float layers float (case 8 of ``engine_builder.qdq.onnxruntime_dialect``).

When a session is opened, onnxruntime (its WeightBiasQuantization, on by default) takes a Conv, ConvTranspose or Gemm with float
weights that reads a DequantizeLinear and, through nothing but Relu or Clip, is read by one QuantizeLinear alone, and quantizes
its weights too: to int8 with one scale for the whole weight, which is the worst choice for depthwise convolutions. A layer that
the assignment leaves in float would run in int8, with less accuracy than int8 by the assignment. A LeakyRelu of slope 1, which
returns its input, between the layer and the QuantizeLinear breaks the pattern; onnxruntime fuses it into the convolution, so it
costs nothing, and the Relu or Clip behind it still disappears into the QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from calibration.graph.free_names import Names
from engine_builder.qdq.rules.placement import MOVING_OPS

_CONVERTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_CROSSED = frozenset({"Relu", "Clip"}) | MOVING_OPS  # onnxruntime moves Q and DQ across these before it looks


class KeepFloatLayers(ir.passes.InPlacePass):
    """Puts an identity that onnxruntime does not see through behind each float layer that it would quantize."""

    def __init__(self, quantized: Collection[str], names: Names) -> None:
        """Keep the node names of the quantized layers, which are left alone."""
        self._quantized = quantized
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the identities."""
        found = [node for node in model.graph if node.name not in self._quantized and _would_be_quantized(node)]
        for node in found:
            self._add_identity(model.graph, node)
        return ir.passes.PassResult(model, modified=bool(found))

    def _add_identity(self, graph: ir.Graph, node: ir.Node) -> None:
        output = node.outputs[0]
        tensor, uses = str(output.name), list(output.uses())
        identity = ir.node("LeakyRelu", [output], attributes={"alpha": 1.0}, name=self._names.new(tensor, "keep_float"))
        result = identity.outputs[0]
        result.name, result.shape, result.dtype = self._names.new(tensor, "kept_float"), output.shape, ir.DataType.FLOAT
        for use in uses:
            use.node.replace_input_with(use.idx, result)
        graph.insert_after(node, identity)


def _would_be_quantized(node: ir.Node) -> bool:
    if node.op_type not in _CONVERTED or node.domain not in ("", "ai.onnx"):
        return False
    return is_dequantized(node.inputs[0]) and _leads_to_one_quantize(node.outputs[0])


def is_dequantized(value: ir.Value | None) -> bool:
    """Return whether a value is what a DequantizeLinear gives, or that moved."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "DequantizeLinear":
            return True
        if producer.op_type not in MOVING_OPS:
            return False
        value = producer.inputs[0]
    return False


def _leads_to_one_quantize(value: ir.Value) -> bool:
    while len(uses := tuple(value.uses())) == 1 and not value.is_graph_output():
        reader = uses[0].node
        if reader.op_type == "QuantizeLinear":
            return True
        if reader.op_type not in _CROSSED:
            return False
        value = reader.outputs[0]
    return False
