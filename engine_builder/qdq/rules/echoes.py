"""Outputs that are inputs: a TensorRT engine cannot have one tensor for both, and such an output is no computation to round.

The output of an input ``x`` that is given out itself is called ``x_output``, since an engine's tensors have names of their own; one that
an Identity gives out has its own name anyway. Both keep the type that they have.
"""

from __future__ import annotations

from copy import copy

import onnx_ir as ir

from calibration.graph.free_names import Names


class SeparateEchoes(ir.passes.InPlacePass):
    """Puts an Identity between an input and the output that it is."""

    def __init__(self, names: Names) -> None:
        """Keep the names in use."""
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename those outputs."""
        graph, found = model.graph, False
        for index, value in enumerate(graph.outputs):
            if value.is_graph_input() and not value.is_initializer():
                name = self._names.new(str(value.name), "output")
                echo = ir.node("Identity", [value], name=self._names.new(name, "Identity"))
                echo.outputs[0].name, echo.outputs[0].type, echo.outputs[0].shape = name, copy(value.type), value.shape
                graph.append(echo)
                graph.outputs[index], found = echo.outputs[0], True
        return ir.passes.PassResult(model, modified=found)


def echoing_nodes(graph: ir.Graph) -> frozenset[str]:
    """Return the names of the nodes that give an input out as it is."""
    return frozenset(
        str(node.name)
        for node in graph
        if node.op_type == "Identity"
        and node.inputs[0] is not None
        and node.inputs[0].is_graph_input()
        and node.outputs[0].is_graph_output()
    )
