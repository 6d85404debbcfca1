r"""Steps that a factor may pass, since f(a x) = a f(x): it is folded into a layer on their other side.

1. Relu, LeakyRelu, PRelu: positive factors, of any axis.
2. MaxPool, GlobalMaxPool: positive factors of the channels, and offsets of them (padding counts for nothing there).
3. AveragePool, GlobalAveragePool: factors of the channels; offsets where nothing is padded.
4. Transpose, Reshape, Flatten, Squeeze, Unsqueeze: all, where the channels are still one axis.
5. Concat: all, part by part.
6. Add of a constant: a (x + c) = a x + a c. That is ``plan``'s, since the constant changes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.graph_passes.folding.channels import Affine, constant_of, integer_of, size_of

_ANY_AXIS = frozenset({"Relu", "LeakyRelu", "PRelu"})
_POOLS = frozenset({"MaxPool", "GlobalMaxPool", "AveragePool", "GlobalAveragePool"})
_MOVES = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def before(node: ir.Node, affine: Affine) -> dict[int, Affine] | None:
    """Return what must happen to which inputs of a node so that ``affine`` happens to its output, None where nothing does that."""
    if node.op_type == "Concat" and node.domain == "":
        return _parts(node, affine)
    moved = _passed(node, affine, is_forward=False)
    return None if moved is None else {0: moved}


def behind(node: ir.Node, index: int, affine: Affine) -> Affine | None:
    """Return what happens to the output of a node when ``affine`` happens to its input ``index``, None where it is nothing of the kind."""
    if node.op_type == "Concat" and node.domain == "":
        return _joined(node, index, affine)
    return _passed(node, affine, is_forward=True) if index == 0 else None


def _passed(node: ir.Node, affine: Affine, *, is_forward: bool) -> Affine | None:
    kind, source = node.op_type, node.inputs[0] if node.inputs else None
    if node.domain != "" or source is None or any(value.uses() for value in node.outputs[1:]):
        return None
    if kind in _ANY_AXIS:  # rule 1
        is_constant = kind != "PRelu" or constant_of(node, 1) is not None
        return affine if affine.is_positive and not affine.has_offset and is_constant else None
    if kind in _POOLS:
        return _pooled(node, source, affine)
    if kind in _MOVES:  # rule 4
        if affine.axis is None:
            return affine
        ends = (source, node.outputs[0]) if is_forward else (node.outputs[0], source)
        axis = _moved_axis(node, ends, affine.axis, is_forward=is_forward)
        return None if axis is None else affine.on(axis)
    return None


def _pooled(node: ir.Node, source: ir.Value, affine: Affine) -> Affine | None:
    if affine.axis is not None and (source.shape is None or affine.axis != 1 - len(source.shape)):
        return None
    if node.op_type in ("MaxPool", "GlobalMaxPool"):  # rule 2
        return affine if affine.is_positive else None
    return affine if node.op_type == "GlobalAveragePool" or not affine.has_offset or not _is_padded(node) else None  # rule 3


def _is_padded(node: ir.Node) -> bool:
    automatic = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    pads = "pads" in node.attributes and any(node.attributes["pads"].as_ints())
    return automatic.startswith("SAME") or pads or bool(integer_of(node, "ceil_mode", 0))


def _moved_axis(node: ir.Node, ends: tuple[ir.Value, ir.Value], axis: int, *, is_forward: bool) -> int | None:
    """Return which axis of the second of the ends, counted from the end, holds what ``axis`` of the first holds."""
    start, goal = ends[0].shape, ends[1].shape
    if start is None or goal is None:
        return None
    if node.op_type == "Transpose":
        rank = len(start)
        order = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(range(rank))[::-1]
        return (order.index(rank + axis) if is_forward else order[rank + axis]) - rank
    return kept_axis(list(start), list(goal), axis)


def kept_axis(start: list[object], goal: list[object], axis: int) -> int | None:
    """Return the axis of the shape ``goal`` that a Reshape leaves as it is in ``start``, both counted from the end.

    It has the same size, and as many elements lie behind it; or all axes before it are equal.

    Args:
        start: Sizes; a dimension that is not fixed is anything but an int.
        goal: Sizes of the same elements in another shape.
        axis: Of ``start``, negative.
    """
    place = len(start) + axis
    size, inner = start[place], start[place + 1 :]
    if not isinstance(size, int) or size == 1:
        return None
    if all(isinstance(one, int) for one in inner):
        wanted = int(np.prod(np.array(inner, dtype=np.int64)))
        behind_it = 1
        for index in range(len(goal) - 1, -1, -1):
            one = goal[index]
            if not isinstance(one, int) or behind_it > wanted:
                break
            if behind_it == wanted and one == size:
                return index - len(goal)
            behind_it *= one
    same = len(goal) > place and all(_is_same(one, other) for one, other in zip(start[: place + 1], goal[: place + 1], strict=True))
    return place - len(goal) if same else None


def _is_same(one: object, other: object) -> bool:
    """Return whether two dimensions are surely of one size."""
    if isinstance(one, int) or isinstance(other, int):
        return one == other
    named = getattr(one, "value", None)
    return named is not None and named == getattr(other, "value", None)


def _joining_axis(node: ir.Node) -> int | None:
    shape = node.outputs[0].shape
    if shape is None or "axis" not in node.attributes:
        return None
    axis = node.attributes["axis"].as_int()
    return axis if axis < 0 else axis - len(shape)


def _parts(node: ir.Node, affine: Affine) -> dict[int, Affine] | None:
    """Rule 5, towards the inputs."""
    axis = _joining_axis(node)
    if affine.axis is None or axis is None or affine.axis != axis:
        return dict.fromkeys(range(len(node.inputs)), affine) if axis is not None else None
    found, start = {}, 0
    for index, value in enumerate(node.inputs):
        size = None if value is None else size_of(value, axis)
        if size is None:
            return None
        found[index] = Affine(_slice(affine.factor, start, size), _slice(affine.offset, start, size), axis)
        start += size
    return found


def _slice(numbers: np.ndarray, start: int, size: int) -> np.ndarray:
    return numbers if numbers.ndim == 0 else numbers[start : start + size]


def _joined(node: ir.Node, index: int, affine: Affine) -> Affine | None:
    """Rule 5, towards the output: the other parts stay as they are."""
    axis = _joining_axis(node)
    if axis is None or (affine.axis is not None and affine.axis != axis):
        return None
    sizes = [None if value is None else size_of(value, axis) for value in node.inputs]
    known = [size for size in sizes if size is not None]
    if len(known) != len(sizes):
        return None
    start, total = sum(known[:index]), sum(known)
    factor, offset = np.ones(total), np.zeros(total)
    factor[start : start + known[index]] = affine.factor
    offset[start : start + known[index]] = affine.offset
    return Affine(factor, offset, axis)
