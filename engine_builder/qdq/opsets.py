"""Raises a model to the opset that a type needs, without copying its weights."""

from __future__ import annotations

import onnx
import onnx.version_converter

from calibration.outline import big_weights, outline
from calibration.supported import opset_version
from engine_builder.errors import BuildError

_IR_VERSIONS = ((21, 10), (19, 9), (1, 8))  # lowest IR version that goes with an opset


def at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a copy of ``model`` at ``opset`` or later, with every node named and all types noted; weights are shared, not copied, by size.

    Raises:
        BuildError: onnx cannot convert one of the operators.
    """
    graph_only = outline(model)
    try:
        if opset_version(model) < opset:
            graph_only = onnx.version_converter.convert_version(graph_only, opset)
        typed = onnx.shape_inference.infer_shapes(graph_only, data_prop=True)
    except Exception as exc:  # onnx's C++ code raises RuntimeError and kinds of its own
        raise BuildError(
            f"model: it cannot be converted from opset {opset_version(model)} to {opset}, which its precisions need: {exc}",
            fix=f"export the model at opset {opset} or later",
        ) from exc
    left_out = big_weights(model)
    result = onnx.ModelProto()
    result.CopyFrom(typed)
    inputs = {value.name for value in model.graph.input}
    del result.graph.input[:]
    result.graph.input.extend(model.graph.input)
    del result.graph.output[:]
    result.graph.output.extend(model.graph.output)
    kept = [value for value in result.graph.value_info if value.name not in left_out and value.name not in inputs]
    del result.graph.value_info[:]
    result.graph.value_info.extend(kept)
    result.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in left_out)
    version = opset_version(result)
    result.ir_version = max(model.ir_version, next(ir_version for lowest, ir_version in _IR_VERSIONS if version >= lowest))
    taken = {node.name for node in result.graph.node}
    for node in result.graph.node:
        if not node.name:
            name, count = f"{node.op_type}_{node.output[0]}", 0
            while name in taken:
                count += 1
                name = f"{node.op_type}_{node.output[0]}_{count}"
            taken.add(name)
            node.name = name
    return result
