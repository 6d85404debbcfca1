"""The pass that parts dequantized tensors from graphs inside nodes that read them (case 14 of ``engine_builder.qdq.onnxruntime_dialect``).

When a session is opened, onnxruntime moves a DequantizeLinear behind the operators that only move values. Where the moved tensor is read by
a graph inside a node (an If, a Loop), it takes that for one of the node's own inputs and ends the process (onnxruntime 1.32). An identity
that it does not see through, between the tensor and such graphs, is what it finds in their place.
"""

from __future__ import annotations

from copy import copy

import onnx_ir as ir

from calibration.graph.free_names import Names
from engine_builder.qdq.guards.float_outputs import CROSSED


class PartCaptures(ir.passes.InPlacePass):
    """Puts an identity between a moved, dequantized tensor and the graphs inside nodes that read it."""

    def __init__(self, names: Names) -> None:
        """Keep ``names``, which hands out the names of new values."""
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the identities."""
        changed = False
        for node in list(model.graph):
            if node.op_type not in CROSSED or not _comes_from_dequantize(node):
                continue
            for output in node.outputs:
                if any(use.node.graph is not model.graph for use in output.uses()):
                    self._part(model.graph, output)
                    changed = True
        return ir.passes.PassResult(model, modified=changed)

    def _part(self, graph: ir.Graph, output: ir.Value) -> None:
        producer, tensor = output.producer(), str(output.name)
        inside = [use for use in output.uses() if use.node.graph is not graph]
        assert producer is not None  # it is an output of a node
        identity = ir.node("LeakyRelu", [output], attributes={"alpha": 1.0}, name=self._names.new(tensor, "part_capture"))
        result = identity.outputs[0]
        result.name, result.shape, result.type = self._names.new(tensor, "captured"), output.shape, copy(output.type)
        for use in inside:
            use.node.replace_input_with(use.idx, result)
        graph.insert_after(producer, identity)


def _comes_from_dequantize(node: ir.Node) -> bool:
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    return producer is not None and (
        producer.op_type == "DequantizeLinear" or (producer.op_type in CROSSED and _comes_from_dequantize(producer))
    )
