"""Finds normalizations over the last axes that are written out: (x - mean) / sqrt(variance + epsilon), times a gain, plus an offset."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine_builder.qdq.guards.written_out import WrittenOut, floats_of, maker, number_of, only_reader


def normalization_at(mean: ir.Node) -> WrittenOut | None:
    """Return the LayerNormalization whose mean this is, None where it is none.

    Args:
        mean: A ReduceMean.
    """
    tensor = mean.inputs[0]
    axes = _last_axes(mean)
    centred = only_reader(mean.outputs[0], "Sub")
    if tensor is None or not axes or centred is None or centred.inputs[0] is not tensor:
        return None
    readers = [use.node for use in centred.outputs[0].uses()]
    squares = [node for node in readers if _is_square(node, centred.outputs[0])]
    if not squares or centred.outputs[0].is_graph_output():
        return None
    variance = only_reader(squares[0].outputs[0], "ReduceMean")
    raised = None if variance is None or _last_axes(variance) != axes else only_reader(variance.outputs[0], "Add")
    root = None if raised is None else only_reader(raised.outputs[0], "Sqrt")
    if variance is None or raised is None or root is None:
        return None
    epsilon = next((number for index in (0, 1) if (number := number_of(raised, index)) is not None), None)
    inverse = only_reader(root.outputs[0], "Reciprocal")
    divided = only_reader(root.outputs[0], "Div") if inverse is None else only_reader(inverse.outputs[0], "Mul")
    if epsilon is None or divided is None or not _is_quotient(divided, centred, root if inverse is None else inverse):
        return None
    if {*readers} - {squares[0], divided}:
        return None
    gained = only_reader(divided.outputs[0], "Mul")
    gain = None if gained is None else _vector(gained, divided.outputs[0], axes)
    if gained is None or gain is None:
        return None
    moved = only_reader(gained.outputs[0], "Add")
    offset = None if moved is None else _vector(moved, gained.outputs[0], axes)
    inner = [mean, centred, squares[0], variance, raised, root, divided, gained, *([] if inverse is None else [inverse])]
    if moved is not None and offset is not None:
        return _found(moved.outputs[0], [*inner, moved], (tensor, gain, offset), axes, epsilon)
    return _found(gained.outputs[0], inner, (tensor, gain), axes, epsilon)


def _found(output: ir.Value, nodes: list[ir.Node], inputs: tuple[ir.Value, ...], axes: int, epsilon: float) -> WrittenOut:
    return WrittenOut(output, nodes, "LayerNormalization", inputs, attributes={"axis": -axes, "epsilon": epsilon})


def _last_axes(node: ir.Node) -> int:
    """Return over how many axes, all of them the last ones, a mean that keeps them is taken; 0 where it is another one."""
    if "keepdims" in node.attributes and node.attributes["keepdims"].as_int() != 1:
        return 0
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    elif len(node.inputs) > 1 and node.inputs[1] is not None and node.inputs[1].const_value is not None:
        axes = [int(axis) for axis in np.asarray(node.inputs[1].const_value.numpy()).reshape(-1)]
    else:
        return 0
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if shape is not None:
        axes = [axis - len(shape) if axis >= 0 else axis for axis in axes]
    return len(axes) if sorted(axes) == list(range(-len(axes), 0)) else 0


def _is_square(node: ir.Node, value: ir.Value) -> bool:
    if node.op_type == "Pow":
        return node.inputs[0] is value and number_of(node, 1) == 2.0
    return node.op_type == "Mul" and all(read is value for read in node.inputs)


def _is_quotient(node: ir.Node, centred: ir.Node, below: ir.Node) -> bool:
    read = [maker(value, centred.op_type, below.op_type) for value in node.inputs]
    return read == [centred, below] or (node.op_type == "Mul" and read == [below, centred])


def _vector(node: ir.Node, value: ir.Value, axes: int) -> ir.Value | None:
    """Return the constant, of the sizes of the last axes, that a value is multiplied by or added to."""
    other = next((read for read in node.inputs if read is not value), None)
    floats = floats_of(other)
    shape = value.shape
    if floats is None or floats.ndim != axes or (shape is not None and tuple(shape)[-axes:] != floats.shape):
        return None
    return other
