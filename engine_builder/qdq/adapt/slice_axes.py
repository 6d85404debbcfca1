"""The pass that writes out the axes of a Slice that cuts the first ones only: if none are named, NVIDIA's parser wants starts for all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.graph.free_names import Names
from engine_builder.qdq.emit.activations import add_initializer

_DATA, _STARTS, _AXES = 0, 1, 3  # places among a Slice's inputs


class WriteSliceAxes(ir.passes.InPlacePass):
    """Gives each Slice without axes the first ones, as many as it has starts, where it has fewer starts than its data has axes."""

    def __init__(self, names: Names) -> None:
        """Keep the names in use."""
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Find the slices, those inside others' graphs too."""
        modified = False
        for node in model.graph.all_nodes():
            count = _first_axes(node)
            if count is not None:
                node.resize_inputs(max(len(node.inputs), _AXES + 1))
                axes = add_initializer(model.graph, self._names.new(str(node.name), "axes"), np.arange(count))
                node.replace_input_with(_AXES, axes)
                modified = True
        return ir.passes.PassResult(model, modified=modified)


def _first_axes(node: ir.Node) -> int | None:
    """Return how many axes a Slice cuts, where it says so by its starts only and those are not for all axes."""
    if node.op_type != "Slice" or (len(node.inputs) > _AXES and node.inputs[_AXES] is not None):
        return None
    data, starts = node.inputs[_DATA], node.inputs[_STARTS]
    if data is None or starts is None or starts.shape is None or not isinstance(starts.shape[0], int):
        return None
    return None if data.shape is not None and len(data.shape) == starts.shape[0] else starts.shape[0]
