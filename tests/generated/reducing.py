"""Operators that reduce, pool or compare the values of a sample with each other."""

from __future__ import annotations

from functools import partial

import numpy as np
from onnx import TensorProto

from tests.generated.graphs import Attributes, GraphBuilder, Tensor
from tests.generated.operators import Operator, axes_form, without


def _reduced(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a reduction over the last axis, the second, or all but that of the samples."""
    x = b.calm(x, 20.0)
    name = b.choices.of(("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceSumSquare", "ReduceLogSumExp"))
    axes = b.choices.of(((x.rank - 1,), (1,), tuple(range(1, x.rank))))
    keeps = b.choices.chance(60)
    count = int(np.prod(b.concrete([x.shape[axis] for axis in axes])))
    inputs, attributes = axes_form(
        b, axes if b.choices.chance(50) or b.opset < 11 else tuple(axis - x.rank for axis in axes), 13 if name == "ReduceSum" else 18
    )
    low, high = {
        "ReduceSum": (-count * x.bound, count * x.bound),
        "ReduceL1": (0.0, count * x.bound),
        "ReduceL2": (0.0, count**0.5 * x.bound),
        "ReduceSumSquare": (0.0, count * x.bound**2),
        "ReduceLogSumExp": (x.low, x.high + float(np.log(count))),
    }.get(name, (x.low, x.high))
    exact = x.exact and name in ("ReduceMax", "ReduceMin")
    shape = without(x.shape, axes, keeps=keeps)
    return b.node(name, [x, *inputs], x, shape=shape, bounds=(low, high), exact=exact, keepdims=int(keeps), **attributes)


def _softmax(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 50.0)
    axis = b.choices.of((x.rank - 1, 1))
    most = x.high - x.low + float(np.log(np.prod([*b.concrete(x.shape[1:])])))
    return b.node(name, [x], x, bounds=(0.0, 1.0) if name == "Softmax" else (-most, 0.0), axis=axis)


def _pooled(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a MaxPool, AveragePool or LpPool of 2 or 3."""
    x = b.calm(x, 100.0)
    spatial = x.rank - 2
    kernel = min(b.choices.of((2, 3)), *b.concrete(x.shape[2:]))
    stride, pads = b.choices.of(((2, 0), (1, 0), (2, 1) if kernel == 3 else (2, 0)))
    attributes: Attributes = {"kernel_shape": [kernel] * spatial, "strides": [stride] * spatial, "pads": [pads] * 2 * spatial}
    if name == "AveragePool" and pads:
        attributes["count_include_pad"] = b.choices.of((0, 1))
    ceil = name != "LpPool" and b.opset >= 10 and pads == 0 and b.choices.chance(20)
    if ceil:
        attributes["ceil_mode"] = 1

    def length(size: int) -> int:
        count = (size + 2 * pads - kernel + (stride - 1 if ceil else 0)) // stride + 1
        return count - int((count - 1) * stride >= size + pads)  # a window that would begin behind the data is none

    shape = (*x.shape[:2], *(b.derived(size, length) for size in x.shape[2:]))
    bounds = (0.0, x.bound * kernel**spatial) if name == "LpPool" else (min(x.low, 0.0), max(x.high, 0.0))
    return b.node(name, [x], x, shape=shape, bounds=bounds, exact=x.exact and name == "MaxPool", **attributes)


def _pooled_whole(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    exact = x.exact and name == "GlobalMaxPool"
    return b.node(name, [x], x, shape=(*x.shape[:2], *[1] * (x.rank - 2)), exact=exact)


def _unit_length(b: GraphBuilder, x: Tensor) -> Tensor:
    """Divide by the length of the last axis, which is kept from 0 by a constant column."""
    y = b.node("Add", [b.node("Abs", [x], x, bounds=(0, x.bound)), b.scalar(0.5, x.kind)], x, bounds=(0.5, x.bound + 0.5))
    return b.node("LpNormalization", [y], y, bounds=(0.0, 1.0), axis=x.rank - 1, p=b.choices.of((2, 1)))


def _standardized(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add a MeanVarianceNormalization over the positions of each sample and channel."""
    x = b.calm(x, 100.0)
    waves = np.sin(np.arange(x.size(-1))).astype(np.float32)  # no sample is constant
    y = b.node("Add", [x, b.floats(waves, x.kind)], x, bounds=(x.low - 1, x.high + 1))
    most = float(np.prod(b.concrete(x.shape[2:]))) ** 0.5 + 1
    return b.node("MeanVarianceNormalization", [y], y, bounds=(-most, most), axes=[2, 3])


def _summed_up(b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 20.0)
    axis = x.rank - 1
    most = x.bound * b.concrete(x.shape)[-1]
    attributes: Attributes = {"exclusive": b.choices.of((0, 1)), "reverse": b.choices.of((0, 1))}
    return b.node("CumSum", [x, b.constant(np.array(axis, np.int64), "axis")], x, bounds=(-most, most), **attributes)


def _largest(b: GraphBuilder, x: Tensor) -> Tensor:
    """Return the largest values of the last axis, sorted."""
    count = b.choices.between(1, x.size(-1))
    values = Tensor("new", x.kind, (*x.shape[:-1], count), x.low, x.high, x.exact)
    places = Tensor("new", TensorProto.INT64, values.shape, 0, x.size(-1), x.exact)
    if b.opset < 10:
        return b.nodes_of("TopK", [x], [values, places], k=count, axis=x.rank - 1)[0]
    found = b.nodes_of("TopK", [x, b.ints(count)], [values, places], axis=-1)
    b.pool.append(found[1])
    return found[0]


def _place_of_largest(b: GraphBuilder, x: Tensor) -> Tensor:
    """Return x; the place of its largest values may become an output of integers, or, where it is exact, choose a row of a table."""
    places = b.node(
        "ArgMax", [x], x, kind=TensorProto.INT64, shape=x.shape[:-1], bounds=(0, x.size(-1) - 1), exact=x.exact, axis=x.rank - 1, keepdims=0
    )
    b.pool.append(places)
    if not x.exact:
        return b.node("Identity", [x], x)
    if b.opset >= 11 and b.choices.chance(50):
        depth = b.constant(np.array(x.size(-1), np.int64), "depth")
        values = b.constant(np.array([0.0, 1.0], np.float32), "off and on")
        return b.node("OneHot", [places, depth, values], x, bounds=(0, 1), kind=TensorProto.FLOAT, exact=True)
    table = b.rng.normal(size=(x.size(-1), 4)).clip(-3, 3)
    return b.node("Gather", [b.floats(table, x.kind), places], x, shape=(*x.shape[:-1], 4), bounds=(-3, 3), exact=True)


def _is_plain(x: Tensor) -> bool:
    return x.kind == TensorProto.FLOAT


def _is_image(x: Tensor) -> bool:
    return x.is_float and x.rank in (3, 4) and x.has_fixed(1)


def _is_wide(x: Tensor) -> bool:
    return _is_plain(x) and x.rank > 1 and x.has_fixed(-1) and x.size(-1) > 1


REDUCING = (
    Operator("reduction", _reduced, accepts=lambda x: _is_plain(x) and x.rank > 1),
    Operator("Softmax", partial(_softmax, "Softmax"), accepts=lambda x: x.is_float and x.rank > 1),
    Operator("LogSoftmax", partial(_softmax, "LogSoftmax"), accepts=lambda x: _is_plain(x) and x.rank > 1),
    *(Operator(name, partial(_pooled, name), accepts=_is_image) for name in ("MaxPool", "AveragePool")),
    Operator("LpPool", partial(_pooled, "LpPool"), accepts=lambda x: _is_image(x) and _is_plain(x) and x.rank == 4),
    *(Operator(name, partial(_pooled_whole, name), accepts=_is_image) for name in ("GlobalAveragePool", "GlobalMaxPool")),
    Operator("LpNormalization", _unit_length, accepts=_is_wide),
    Operator("MeanVarianceNormalization", _standardized, accepts=lambda x: _is_wide(x) and x.rank == 4),
    Operator("CumSum", _summed_up, accepts=lambda x: _is_plain(x) and x.rank > 1, since=11),
    Operator("TopK", _largest, accepts=_is_wide),
    Operator("ArgMax", _place_of_largest, accepts=_is_wide),
)
