"""Raises a model to the opset that a type needs, without copying its weights, and tells those of an engine."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.version_converter
import onnx_ir as ir

from calibration.graph.opset import opset_version
from calibration.graph.type_inference import inferred
from calibration.graph.weightless import big_weights, weightless_copy
from engine_builder.errors import BuildError

_IR_VERSIONS = ((21, 10), (19, 9), (1, 8))  # lowest IR version that goes with an opset


def at_opset(model: onnx.ModelProto, opset: int) -> ir.Model:
    """Return ``model`` at ``opset`` or later, every node named and every type noted; big weights are shared with ``model``, of any size.

    Raises:
        BuildError: onnx cannot convert one of the operators.
    """
    graph_only = weightless_copy(model)
    try:
        if opset_version(model) < opset:
            graph_only = onnx.version_converter.convert_version(graph_only, opset)
        graph_only = inferred(graph_only, data_prop=True)
    except Exception as exc:  # onnx's C++ code raises RuntimeError and kinds of its own
        raise BuildError(
            f"model: it cannot be converted from opset {opset_version(model)} to {opset}, which its precisions need: {exc}",
            fix=f"export the model at opset {opset} or later",
        ) from exc
    version = opset_version(graph_only)
    graph_only.ir_version = max(model.ir_version, next(ir_version for lowest, ir_version in _IR_VERSIONS if version >= lowest))
    _name_nodes(graph_only)
    return _with_weights(ir.from_proto(graph_only), model)


def engine_opsets(engine: Path) -> dict[str, int]:
    """Return the opsets that a runtime must have for an engine's file, by domain, the standard's called ai.onnx; empty for a plan.

    Args:
        engine: The file.
    """
    if engine.suffix != ".onnx":
        return {}
    model = onnx.load_model(engine, load_external_data=False)
    return {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}


def _name_nodes(model: onnx.ModelProto) -> None:
    """Name what the converter added."""
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if not node.name:
            name, count = f"{node.op_type}_{node.output[0]}", 0
            while name in taken:
                count += 1
                name = f"{node.op_type}_{node.output[0]}_{count}"
            taken.add(name)
            node.name = name


def _with_weights(work: ir.Model, model: onnx.ModelProto) -> ir.Model:
    """Put the big weights of ``model`` back where the weightless copy has graph inputs."""
    missing = big_weights(model)
    placeholders = {value.name: value for value in work.graph.inputs if value.name in missing}
    listed = {value.name for value in model.graph.input}
    inputs = [value for value in work.graph.inputs if value.name in listed]
    work.graph.inputs.clear()
    work.graph.inputs.extend(inputs)
    for tensor in model.graph.initializer:
        value = placeholders.get(tensor.name)
        if value is not None:
            value.const_value = ir.from_proto(tensor)
            work.graph.register_initializer(value)
    return work
