"""The pass that writes out the condition of a loop that only counts, which NVIDIA's parser wants to see: one that is always true."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.graph.free_names import Names
from engine_builder.qdq.emit.activations import add_initializer

_COUNT, _CONDITION = 0, 1  # places among a Loop's inputs


class WriteConditions(ir.passes.InPlacePass):
    """Gives each Loop with a number of steps and no condition the constant True, which is what no condition means."""

    def __init__(self, names: Names) -> None:
        """Keep the names in use."""
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Find the loops, those inside others too."""
        open_ended = [node for node in model.graph.all_nodes() if node.op_type == "Loop" and _only_counts(node)]
        for node in open_ended:
            node.resize_inputs(max(len(node.inputs), _CONDITION + 1))
            true = add_initializer(model.graph, self._names.new(str(node.name), "goes_on"), np.array(True))
            node.replace_input_with(_CONDITION, true)
        return ir.passes.PassResult(model, modified=bool(open_ended))


def _only_counts(node: ir.Node) -> bool:
    given = [place < len(node.inputs) and node.inputs[place] is not None for place in (_COUNT, _CONDITION)]
    return given == [True, False]
