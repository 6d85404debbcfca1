"""Writes a graph that passes have changed as a model again."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from calibration.graph.type_inference import note_missing_types


def written(work: ir.Model, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that passes have changed as a model.

    Args:
        work: The graph.
        model: What it was read from; its inputs and outputs are taken over as they stand there.
    """
    result: onnx.ModelProto = ir.to_proto(work)
    for tensor, value in zip(result.graph.initializer, work.graph.initializers.values(), strict=True):
        tensor.name = value.name or ""
    constants = {tensor.name for tensor in result.graph.initializer}
    known = [value for value in result.graph.value_info if value.name not in constants]
    del result.graph.value_info[:]
    result.graph.value_info.extend(known)
    kept = {value.name for value in result.graph.input}
    inputs = {value.name: value for value in model.graph.input if value.name in kept}
    del result.graph.input[:], result.graph.output[:]
    result.graph.input.extend(inputs.values())
    result.graph.output.extend(inputs.get(value.name, value) for value in model.graph.output)  # an input's sizes hold for its output
    note_missing_types(result)
    return result
