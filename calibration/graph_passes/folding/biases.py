"""A bias of its own for every layer that can have one for nothing, so that corrections of its output have a place.

Rules:
    1. A Conv, ConvTranspose or Gemm without a bias gets zeros.
    2. The bias of a Gemm, or the constant that an Add or a Sub puts on a MatMul, becomes one number for each channel, (channels,), where
       it was one number for all, and a copy where something else reads it; the Sub becomes an Add.
A MatMul with no such Add stays without: a bias would be one more node.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.graph.free_names import Names
from calibration.graph_passes.folding.channels import Float, affine_of
from calibration.graph_passes.folding.parameters import Parameters, parameters_of
from calibration.graph_passes.folding.plan import set_constant, take_over_output


def complete_biases(graph: ir.Graph, names: Names) -> None:
    """Give the layers of the main graph their biases, in place.

    Args:
        graph: The main graph, each tensor with its shape and type.
        names: Hands out the names of new constants.
    """
    for node in tuple(graph):
        layer = parameters_of(node)
        if layer is None:
            continue
        if not layer.has_bias_input:
            _complete_add(graph, layer, names)
        elif layer.bias is None:  # rule 1
            set_constant(graph, node, 2, np.zeros(layer.channels_out, np.float32), names, "bias")
        elif layer.bias.size == 1 and layer.channels_out > 1:
            set_constant(graph, node, 2, _per_channel(layer.bias.reshape(()), layer.channels_out), names, "bias")


def _complete_add(graph: ir.Graph, layer: Parameters, names: Names) -> None:
    """Rule 2, behind a MatMul."""
    made = layer.node.outputs[0]
    readers = [use.node for use in made.uses()]
    if len(readers) != 1 or made.is_graph_output() or layer.out_axis != -1 or readers[0].graph is not graph:
        return
    node = readers[0]
    found = affine_of(node) if node.op_type in ("Add", "Sub") else None
    if found is None or found[1].has_factor or found[1].axis not in (None, -1):
        return
    value, affine = found
    if affine.axis is not None and len(affine.offset) != layer.channels_out:
        return
    constant = next(one for one in node.inputs if one is not value)
    assert constant is not None
    is_own = len(constant.uses()) == 1 and not constant.is_graph_output()
    if node.op_type == "Add" and affine.axis is not None and is_own:
        return
    bias = _per_channel(affine.offset, layer.channels_out)
    if node.op_type == "Add":
        index = list(node.inputs).index(constant)
        set_constant(graph, node, index, bias, names, "bias")
        return
    add = ir.node("Add", [value, None])
    graph.insert_before(node, [add])
    set_constant(graph, add, 1, bias, names, "bias", of=node.outputs[0])
    take_over_output(graph, add, node)


def _per_channel(numbers: Float, channels: int) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(numbers, (channels,)), dtype=np.float32)
