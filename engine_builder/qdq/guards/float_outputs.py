"""The pass that keeps the model's outputs float where nothing quantizes them (case 13 of ``engine_builder.qdq.onnxruntime_dialect``).

When a session is opened, onnxruntime moves a QuantizeLinear in front of a Transpose, to move integers. It looks whether anything else
reads the transposed tensor, not whether that is an output of the model, which then comes out rounded (onnxruntime 1.32). An identity that
it does not see through, between the output and the Transpose, keeps the output as it is.
"""

from __future__ import annotations

from copy import copy

import onnx_ir as ir

from calibration.graph.free_names import Names
from engine_builder.qdq.rules.placement import MOVING_OPS

CROSSED = MOVING_OPS | {"Slice"}  # onnxruntime moves a QuantizeLinear in front of some of these, a DequantizeLinear behind


class KeepFloatOutputs(ir.passes.InPlacePass):
    """Puts an identity between each output of the model and the Transposes that lead from it to a QuantizeLinear."""

    def __init__(self, names: Names) -> None:
        """Keep ``names``, which hands out the names of new values."""
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add the identities."""
        changed = False
        for output in dict.fromkeys(model.graph.outputs):
            uses = [use for use in output.uses() if use.node.op_type == "Transpose" and _leads_to_quantize(use.node)]
            producer = output.producer()
            if not uses or producer is None or producer.op_type == "DequantizeLinear":
                continue
            tensor = str(output.name)
            identity = ir.node("LeakyRelu", [output], attributes={"alpha": 1.0}, name=self._names.new(tensor, "keep_output"))
            result = identity.outputs[0]
            result.name, result.shape, result.type = self._names.new(tensor, "kept_output"), output.shape, copy(output.type)
            for use in uses:
                use.node.replace_input_with(use.idx, result)
            model.graph.insert_after(producer, identity)
            changed = True
        return ir.passes.PassResult(model, modified=changed)


def _leads_to_quantize(node: ir.Node) -> bool:
    readers = [use.node for use in node.outputs[0].uses()]
    return any(one.op_type == "QuantizeLinear" or (one.op_type in CROSSED and _leads_to_quantize(one)) for one in readers)
