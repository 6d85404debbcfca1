"""Operators that move, select, join and resize, with the shape arithmetic that exporters write around them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.generated.graphs import Attributes, Dim, GraphBuilder, Tensor
from tests.generated.operators import Operator, axes_form, partner, rest_of

_INT64 = TensorProto.INT64


def _moved(
    b: GraphBuilder, name: str, inputs: list[Tensor | str], x: Tensor, shape: tuple[Dim, ...] | list[Dim], **attributes: Any
) -> Tensor:
    return b.node(name, inputs, x, shape=shape, exact=x.exact, **attributes)


def size_of(b: GraphBuilder, x: Tensor, axis: int) -> Tensor:
    """Return the size of an axis as a row of one int64: Shape and Gather or Slice."""
    shape = b.node("Shape", [x], x, kind=_INT64, shape=(x.rank,), bounds=(1, 1e6), exact=True)
    if b.choices.chance(50) or b.opset < 10:
        return b.node("Gather", [shape, b.ints(axis)], shape, shape=(1,), exact=True, axis=0)
    return b.node("Slice", [shape, b.ints(axis), b.ints(axis + 1)], shape, shape=(1,), exact=True)


def _flattened(b: GraphBuilder, x: Tensor) -> Tensor:
    """Make one row of a sample: Flatten, or a Reshape to a constant or to a computed shape."""
    rest = rest_of(x)
    assert rest is not None
    way = b.choices.below(4)
    if way == 1:
        return _moved(b, "Reshape", [x, b.ints(0, -1)], x, (x.shape[0], rest))
    if way == 2:
        return _moved(b, "Reshape", [x, b.ints(-1, rest)], x, (x.shape[0], rest))
    if way == 3:
        sizes = b.node("Concat", [size_of(b, x, 0), b.ints(-1)], x, kind=_INT64, shape=(2,), bounds=(-1, 1e6), exact=True, axis=0)
        return _moved(b, "Reshape", [x, sizes], x, (x.shape[0], rest))
    return _moved(b, "Flatten", [x], x, (x.shape[0], rest))


def _reshaped(b: GraphBuilder, x: Tensor) -> Tensor:
    """Cut the last axis in two, or join the last two."""
    width = x.size(-1)
    if width % 2 == 0 and width > 2 and x.rank < 4:
        return _moved(b, "Reshape", [x, b.ints(*[0] * (x.rank - 1), 2, width // 2)], x, (*x.shape[:-1], 2, width // 2))
    if x.rank > 2 and x.has_fixed(-2):
        joined = x.size(-2) * width
        return _moved(b, "Reshape", [x, b.ints(*[0] * (x.rank - 2), joined)], x, (*x.shape[:-2], joined))
    return _moved(b, "Identity", [x], x, x.shape)


def _transposed(b: GraphBuilder, x: Tensor) -> Tensor:
    order = [0, *b.choices.of(([*range(2, x.rank), 1], [*reversed(range(1, x.rank))], [x.rank - 1, *range(1, x.rank - 1)]))]
    return _moved(b, "Transpose", [x], x, [x.shape[axis] for axis in order], perm=order)


def _unsqueezed(b: GraphBuilder, x: Tensor) -> Tensor:
    axis = b.choices.between(1, x.rank)
    inputs, attributes = axes_form(b, (axis,), 13)
    return _moved(b, "Unsqueeze", [x, *inputs], x, (*x.shape[:axis], 1, *x.shape[axis:]), **attributes)


def _squeezed(b: GraphBuilder, x: Tensor) -> Tensor:
    axis = next(index for index in range(1, x.rank) if x.shape[index] == 1)
    inputs, attributes = axes_form(b, (axis - x.rank if b.opset >= 11 else axis,), 13)
    return _moved(b, "Squeeze", [x, *inputs], x, (*x.shape[:axis], *x.shape[axis + 1 :]), **attributes)


def _joined(b: GraphBuilder, x: Tensor) -> Tensor:
    """Concat with a tensor of the same shape, with itself, or with a third one."""
    axis = b.choices.between(1, x.rank - 1)
    axis = axis if x.has_fixed(axis) else next(index for index in range(1, x.rank) if x.has_fixed(index))
    given = [x, partner(b, x) or x, *([x] if b.choices.chance(20) else [])]
    low, high = min(one.low for one in given), max(one.high for one in given)
    shape = (*x.shape[:axis], x.size(axis) * len(given), *x.shape[axis + 1 :])
    exact = all(one.exact for one in given)
    return b.node("Concat", given, x, shape=shape, bounds=(low, high), exact=exact, axis=b.choices.of((axis, axis - x.rank)))


def _split(b: GraphBuilder, x: Tensor) -> Tensor:
    """Cut in two or three and go on with one, or with the product of two."""
    axis = next(index for index in reversed(range(1, x.rank)) if x.has_fixed(index) and x.size(index) > 1)
    size = x.size(axis)
    sizes = [size // 2, size - size // 2]
    equal = size % 2 == 0 and b.choices.chance(50)
    attributes: Attributes = {"axis": axis}
    inputs: list[Tensor | str] = [x]
    if equal:
        attributes |= {"num_outputs": 2} if b.opset >= 18 else {}
    elif b.opset >= 13:
        inputs.append(b.ints(*sizes))
    else:
        attributes["split"] = sizes
    made = b.nodes_of(
        "Split",
        inputs,
        [Tensor("new", x.kind, (*x.shape[:axis], part, *x.shape[axis + 1 :]), x.low, x.high, x.exact) for part in sizes],
        **attributes,
    )
    b.pool.append(made[1])
    return made[0]


def _sliced(b: GraphBuilder, x: Tensor) -> Tensor:
    axis = next(index for index in reversed(range(1, x.rank)) if x.has_fixed(index) and x.size(index) > 1)
    size = x.size(axis)
    start, stop, step = b.choices.of(((0, size - 1, 1), (1, 2**31 - 1, 1), (-size + 1, size, 1), (0, size, 2), (size - 1, -(2**31), -1)))
    if b.opset < 10:
        start, stop, step = b.choices.of(((0, size - 1, 1), (1, 2**31 - 1, 1)))
    count = len(range(size)[start:stop:step])
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    if b.opset < 10:
        return _moved(b, "Slice", [x], x, shape, axes=[axis], starts=[start], ends=[stop])
    steps = [b.ints(step)] if step != 1 or b.choices.chance(30) else []
    return _moved(b, "Slice", [x, b.ints(start), b.ints(stop), b.ints(axis), *steps], x, shape)


def _gathered(b: GraphBuilder, x: Tensor) -> Tensor:
    """Gather by constant indices: some rows, one row without its axis, or elements."""
    axis = next(index for index in reversed(range(1, x.rank)) if x.has_fixed(index))
    size = x.size(axis)
    if x.rank > 2 and b.choices.chance(40):
        index = b.constant(np.array(b.choices.of((0, size - 1)), np.int64), "index")
        return _moved(b, "Gather", [x, index], x, (*x.shape[:axis], *x.shape[axis + 1 :]), axis=axis)
    indices = b.rng.integers(-size if b.opset >= 11 else 0, size, b.choices.between(1, 4))
    return _moved(b, "Gather", [x, b.constant(indices, "indices")], x, (*x.shape[:axis], len(indices), *x.shape[axis + 1 :]), axis=axis)


def _tiled(b: GraphBuilder, x: Tensor) -> Tensor:
    axis = next(index for index in range(1, x.rank) if x.has_fixed(index))
    repeats = [2 if index == axis else 1 for index in range(x.rank)]
    return _moved(b, "Tile", [x, b.ints(*repeats)], x, [2 * x.size(index) if index == axis else size for index, size in enumerate(x.shape)])


def _expanded(b: GraphBuilder, x: Tensor) -> Tensor:
    axis = next(index for index in range(1, x.rank) if x.shape[index] == 1)
    shape = [1] * x.rank
    shape[axis] = 3
    return _moved(b, "Expand", [x, b.ints(*shape)], x, (*x.shape[:axis], 3, *x.shape[axis + 1 :]))


def _padded(b: GraphBuilder, x: Tensor) -> Tensor:
    mode = b.choices.of(("constant", "edge", "reflect"))
    axis = x.rank - 1
    mode = mode if x.has_fixed(axis) and x.size(axis) > 1 else "constant"
    before, after = [0] * x.rank, [0] * x.rank
    before[axis], after[axis] = b.choices.of(((1, 1), (0, 1), (1, 0)))
    grown = before[axis] + after[axis]
    shape = (*x.shape[:axis], b.derived(x.shape[axis], lambda size: size + grown))
    bounds = (min(x.low, 0.0), max(x.high, 0.0)) if mode == "constant" else (x.low, x.high)
    if b.opset < 11:
        return b.node("Pad", [x], x, shape=shape, bounds=bounds, exact=x.exact, mode=mode, pads=[*before, *after])
    value = (
        [b.constant(np.array(0.0, np.float32), "value")]
        if mode == "constant" and x.kind == TensorProto.FLOAT and b.choices.chance(50)
        else []
    )
    return b.node("Pad", [x, b.ints(*before, *after), *value], x, shape=shape, bounds=bounds, exact=x.exact, mode=mode)


def _space(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    n, channels, height, width = x.shape[0], x.size(1), x.size(2), x.size(3)
    if name == "SpaceToDepth":
        return _moved(b, name, [x], x, (n, channels * 4, height // 2, width // 2), blocksize=2)
    mode = {"mode": b.choices.of(("DCR", "CRD"))} if b.opset >= 11 else {}
    return _moved(b, name, [x], x, (n, channels // 4, height * 2, width * 2), blocksize=2, **mode)


def _resized(b: GraphBuilder, x: Tensor) -> Tensor:
    """Double the spatial axes: Upsample, or Resize by constant or computed sizes."""
    mode = b.choices.of(("nearest", "linear"))
    spatial = x.rank - 2
    shape = (*x.shape[:2], *(b.derived(size, lambda n: 2 * n) for size in x.shape[2:]))
    scales = b.constant(np.array([1, 1, *[2] * spatial], np.float32), "scales")
    if b.opset < 11:
        return b.node("Upsample" if b.opset == 9 else "Resize", [x, scales], x, shape=shape, exact=x.exact and mode == "nearest", mode=mode)
    how = b.choices.of(("asymmetric", "half_pixel", *(("align_corners",) if mode == "linear" else ())))
    attributes: Attributes = {"mode": mode, "coordinate_transformation_mode": how}
    attributes |= {"nearest_mode": "floor"} if mode == "nearest" else {}
    none = "" if b.opset >= 13 else b.constant(np.array([], np.float32), "roi")
    if not b.choices.chance(40):
        return b.node("Resize", [x, none, scales], x, shape=shape, **attributes)
    wanted = [
        b.node("Mul", [size_of(b, x, axis), b.ints(2)], x, kind=_INT64, shape=(1,), bounds=(1, 1e6), exact=True)
        for axis in range(2, x.rank)
    ]
    whole = b.node("Shape", [x], x, kind=_INT64, shape=(x.rank,), bounds=(1, 1e6), exact=True)
    kept = b.node("Slice", [whole, b.ints(0), b.ints(2)], whole, shape=(2,), exact=True)
    sizes = b.node("Concat", [kept, *wanted], kept, shape=(x.rank,), bounds=(1, 1e6), exact=True, axis=0)
    empty = "" if b.opset >= 13 else b.constant(np.array([], np.float32), "scales")
    return b.node("Resize", [x, none, empty, sizes], x, shape=shape, **attributes)


def _positions(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add positions along axis 1, counted by a Range of its size: in integers, or in floats as some exporters write."""
    x = b.calm(x)
    length = size_of(b, x, 1)
    kind = b.choices.of((_INT64, TensorProto.FLOAT))
    dtype = np.int64 if kind == _INT64 else np.float32
    inputs, attributes = axes_form(b, (0,), 13)
    count = b.cast(b.node("Squeeze", [length, *inputs], length, shape=(), exact=True, **attributes), kind)
    ends: list[Tensor | str] = [b.constant(np.array(0, dtype)), count, b.constant(np.array(1, dtype))]
    steps = b.node("Range", ends, x, kind=kind, shape=(x.shape[1],), bounds=(0, 64), exact=True)
    floats = b.cast(steps, TensorProto.FLOAT)
    scaled = b.node("Mul", [floats, b.scalar(0.1)], floats, bounds=(0, 6.4))
    column = b.node("Reshape", [scaled, b.ints(-1, *[1] * (x.rank - 2))], scaled, shape=(x.shape[1], *[1] * (x.rank - 2)))
    return b.node("Add", [x, column], x, bounds=(x.low, x.high + 6.4))


def _filled(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a tensor of one value, made in the shape of another: ConstantOfShape."""
    value = np.array([0.25], np.float32)
    shape = b.node("Shape", [x], x, kind=_INT64, shape=(x.rank,), bounds=(1, 1e6), exact=True)
    filled = b.node("ConstantOfShape", [shape], x, bounds=(0.25, 0.25), value=numpy_helper.from_array(value, "value"))
    return b.node("Add", [x, filled], x, bounds=(x.low + 0.25, x.high + 0.25))


def _triangle(b: GraphBuilder, x: Tensor) -> Tensor:
    return b.node("Trilu", [x], x, bounds=(min(x.low, 0.0), max(x.high, 0.0)), exact=x.exact, upper=b.choices.of((1, 0)))


def _scattered(b: GraphBuilder, x: Tensor) -> Tensor:
    """Set one column: ScatterElements by constant indices, of the values of another column."""
    axis = x.rank - 1
    index = [b.constant(np.array([1], np.int64), "column")]
    column = _moved(b, "Gather", [x, *index], x, (*x.shape[:-1], 1), axis=axis)
    zeros = b.node("Mul", [column, b.scalar(0.0, x.kind)], column, bounds=(0.0, 0.0))
    places = b.cast(zeros, _INT64)
    return b.node("ScatterElements", [x, places, column], x, axis=axis)


def _with_nothing(b: GraphBuilder, x: Tensor) -> Tensor:
    """Join the tensor and an empty part of it."""
    axis = next(index for index in range(1, x.rank) if x.has_fixed(index))
    none = _moved(b, "Slice", [x, b.ints(0), b.ints(0), b.ints(axis)], x, (*x.shape[:axis], 0, *x.shape[axis + 1 :]))
    return _moved(b, "Concat", [none, x], x, x.shape, axis=axis)


def _is_plain(x: Tensor) -> bool:
    return x.kind == TensorProto.FLOAT


def _has_wide_axis(x: Tensor) -> bool:
    return x.is_float and any(x.has_fixed(axis) and x.size(axis) > 1 for axis in range(1, x.rank))


def _has_fixed_axis(x: Tensor) -> bool:
    return x.is_float and any(x.has_fixed(axis) for axis in range(1, x.rank))


def _has_single_axis(x: Tensor) -> bool:
    return x.is_float and 1 in x.shape[1:]


def _is_spaced(x: Tensor, divisor: int) -> bool:
    return (
        _is_plain(x)
        and x.rank == 4
        and x.has_fixed(1, 2, 3)
        and (x.size(1) % 4 == 0 if divisor == 1 else x.size(2) % 2 == x.size(3) % 2 == 0)
    )


MOVING = (
    Operator("Transpose", _transposed, accepts=lambda x: x.is_float and x.rank > 2),
    Operator("flatten", _flattened, accepts=lambda x: x.is_float and x.rank > 2 and rest_of(x) is not None),
    Operator("Reshape", _reshaped, accepts=lambda x: x.is_float and x.rank > 1 and x.has_fixed(-1)),
    Operator("Unsqueeze", _unsqueezed, accepts=lambda x: x.is_float and x.rank < 4),
    Operator("Squeeze", _squeezed, accepts=lambda x: _has_single_axis(x) and x.rank > 2),
    Operator("Concat", _joined, accepts=_has_fixed_axis),
    Operator("Split", _split, accepts=_has_wide_axis),
    Operator("Slice", _sliced, accepts=_has_wide_axis),
    Operator("Gather", _gathered, accepts=_has_fixed_axis),
    Operator("empty part", _with_nothing, accepts=_has_fixed_axis, since=10),
    Operator("Tile", _tiled, accepts=_has_fixed_axis),
    Operator("Expand", _expanded, accepts=_has_single_axis),
    Operator("Pad", _padded, accepts=lambda x: _is_plain(x) and x.rank > 2),
    Operator("DepthToSpace", partial(_space, "DepthToSpace"), accepts=lambda x: _is_spaced(x, 1)),
    Operator("SpaceToDepth", partial(_space, "SpaceToDepth"), accepts=lambda x: _is_spaced(x, 2)),
    Operator("Resize", _resized, accepts=lambda x: _is_plain(x) and x.rank == 4),
    Operator("positions", _positions, accepts=lambda x: _is_plain(x) and x.rank > 1, since=11),
    Operator("ConstantOfShape", _filled, accepts=_is_plain),
    Operator("Trilu", _triangle, accepts=lambda x: _is_plain(x) and x.rank > 2, since=14),
    Operator("ScatterElements", _scattered, accepts=lambda x: _is_plain(x) and x.rank > 1 and x.has_fixed(-1) and x.size(-1) > 1, since=11),
)
