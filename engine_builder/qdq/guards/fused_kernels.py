"""The pass that keeps activations and normalizations in one kernel (case 17 of ``engine_builder.qdq.onnxruntime_dialect``).

A GELU, a SiLU or a LayerNormalization that is written out reads its input at two or three places. When a session is opened, onnxruntime
(1.32) first gives every reader of a dequantized tensor a DequantizeLinear of its own; the pattern then seems to have several inputs, and is
not fused into the kernel that it has in the float model. All-int8 engines were slower for that alone: a text recogniser (GELU) took 0.74
instead of 0.61 of float one line at a time and 0.80 instead of 0.57 eight at a time, a YOLO (SiLU) 0.76 instead of 0.64. Where the input
comes from a DequantizeLinear, this pass writes the operator that onnxruntime would have put there; elsewhere the runtime does it.
"""

from __future__ import annotations

import onnx_ir as ir

from calibration.graph.free_names import Names
from engine_builder.qdq.emit.block_layers import DOMAIN, DOMAIN_VERSION
from engine_builder.qdq.guards.float_layers import is_dequantized
from engine_builder.qdq.guards.layer_normalizations import normalization_at
from engine_builder.qdq.guards.written_out import WrittenOut
from engine_builder.qdq.guards.written_out_functions import CURVES, function_at


class KeepFusedKernels(ir.passes.InPlacePass):
    """Writes patterns of a dequantized tensor as the one operator that onnxruntime has for them."""

    def __init__(self, names: Names) -> None:
        """Keep ``names``, which hands out the names of new nodes."""
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace the patterns."""
        changed = False
        for node in list(model.graph):
            if node.op_type in CURVES:
                found = function_at(node)
            elif node.op_type == "ReduceMean":
                found = normalization_at(node)
            else:
                continue
            if found is not None and is_dequantized(found.inputs[0]):
                self._replace(model, found)
                changed = True
        return ir.passes.PassResult(model, modified=changed)

    def _replace(self, model: ir.Model, found: WrittenOut) -> None:
        graph, output = model.graph, found.output
        last = output.producer()
        assert last is not None  # the pattern ends in it
        name = self._names.new(str(output.name), found.operator)
        fused = ir.node(found.operator, found.inputs, attributes=found.attributes, domain=found.domain, name=name)
        result = fused.outputs[0]
        result.shape, result.type = output.shape, output.type
        graph.insert_after(last, fused)
        text = str(output.name)
        ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        constants = [value for node in found.nodes for value in node.inputs if value is not None and value.is_initializer()]
        graph.remove(found.nodes, safe=True)
        for value in constants:
            if not value.uses() and not value.is_graph_output():
                graph.initializers.pop(str(value.name), None)
        result.name = text
        if found.domain:
            graph.opset_imports.setdefault(DOMAIN, DOMAIN_VERSION)
