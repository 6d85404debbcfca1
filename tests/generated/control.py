"""If and Loop with bodies that capture tensors and weights of the graph around them, and calls of model-local functions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.generated.graphs import Attributes, GraphBuilder, Tensor, value_info
from tests.generated.moving import size_of
from tests.generated.operators import Operator
from tests.generated.pointwise import POINTWISE
from tests.generated.weighted import LINEAR

DOMAIN = "made.up"


def _condition(b: GraphBuilder, x: Tensor) -> Tensor:
    """Return a truth value: constant, or computed from a size that the samples share."""
    if b.choices.chance(40) or x.rank < 2:
        return Tensor(b.constant(np.array(b.choices.chance(50)), "condition"), TensorProto.BOOL, (), 0, 1, exact=True)
    size = b.cast(size_of(b, x, 1), TensorProto.INT32)
    axes: tuple[list[str], Attributes] = ([b.ints(0)], {}) if b.opset >= 13 else ([], {"axes": [0]})
    size = b.node("Squeeze", [size, *axes[0]], size, shape=(), exact=True, **axes[1])
    limit = b.constant(np.array(b.choices.of((3, 100)), np.int32), "limit")
    return b.node("Greater", [size, limit], size, kind=TensorProto.BOOL, bounds=(0, 1), exact=True)


def _body(b: GraphBuilder, x: Tensor, most: float) -> tuple[GraphBuilder, Tensor]:
    """Return a builder in which ``x`` was changed, its shape and type kept, with bounds of ``most``."""
    inner = b.inner()
    y = x
    for _ in range(b.choices.below(3)):
        options = [one for one in (*POINTWISE, *LINEAR) if one.fits(inner, y) and one.name not in ("ConvTranspose",)]
        tried = inner.choices.of(options).grow(inner, inner.calm(y, min(most, 20.0)))
        y = tried if tried.shape == x.shape and tried.kind == x.kind else y
    y = inner.calm(y, most)
    if y.name in {tensor.name for tensor in b.pool} or y.name == x.name:
        y = inner.node("Neg" if b.choices.chance(30) else "Identity", [y], y, bounds=(-y.bound, y.bound))
    return inner, y


def _branch(b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 100.0)
    condition = _condition(b, x)
    (first, one), (second, other) = _body(b, x, 200.0), _body(b, x, 200.0)
    graphs = [
        helper.make_graph(inner.nodes, "branch", [], [value_info(y, has_shape=False)], inner.initializers)
        for inner, y in ((first, one), (second, other))
    ]
    bounds = (min(one.low, other.low), max(one.high, other.high))
    return b.node("If", [condition], x, bounds=bounds, then_branch=graphs[0], else_branch=graphs[1])


def _loop(b: GraphBuilder, x: Tensor) -> Tensor:
    """Repeat a body a constant number of times; its state stays within its bounds."""
    names = b.shared.tensor_names
    x = b.calm(x, 20.0)
    state = Tensor(names.new("state"), x.kind, x.shape, -20.0, 20.0)
    step, going = names.new("step"), names.new("going")
    inner, after = _body_of_state(b, state)
    still = inner.node("Identity", [going], Tensor("", TensorProto.BOOL, (), 0, 1), exact=True)
    kept = after
    outputs = [value_info(still), value_info(kept, has_shape=False)]
    body = helper.make_graph(
        inner.nodes,
        "repeated",
        [
            helper.make_tensor_value_info(step, TensorProto.INT64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
            value_info(state, has_shape=b.choices.chance(50)),
        ],
        outputs,
        inner.initializers,
    )
    trips = b.constant(np.array(b.choices.between(1, 3), np.int64), "trips")
    condition = b.constant(np.array(True), "condition") if b.choices.chance(50) else ""
    return b.node("Loop", [trips, condition, x], x, bounds=(-20.0, 20.0), body=body)


def _body_of_state(b: GraphBuilder, state: Tensor) -> tuple[GraphBuilder, Tensor]:
    outer = b.pool
    b.pool = [*outer, state]
    try:
        return _body(b, state, 20.0)
    finally:
        b.pool = outer


def _call(b: GraphBuilder, x: Tensor) -> Tensor:
    """Call a function of the model: a gated activation, or one that calls that with an attribute of its own."""
    name = b.choices.of(("Gated", "Squashed", "Nested"))
    x = b.calm(x, 50.0)
    for needed in ("Gated", name) if name == "Nested" else (name,):
        b.shared.functions.setdefault(needed, _function(needed, b.opset))
    attributes: Attributes = {"steepness": 0.5} if name == "Squashed" else {}
    bounds = (-1.0, 1.0) if name == "Squashed" else (-x.bound, x.bound)
    return b.node(name, [x], x, bounds=bounds, domain=DOMAIN, **attributes)


def _function(name: str, opset: int) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    node = helper.make_node
    if name == "Gated":
        nodes = [node("Sigmoid", ["x"], ["gate"]), node("Mul", ["x", "gate"], ["y"])]
        return helper.make_function(DOMAIN, name, ["x"], ["y"], nodes, imports)
    if name == "Nested":
        nodes = [node("Gated", ["x"], ["y1"], domain=DOMAIN), node("Neg", ["y1"], ["y2"]), node("Gated", ["y2"], ["y"], domain=DOMAIN)]
        return helper.make_function(DOMAIN, name, ["x"], ["y"], nodes, imports)
    elu = node("Elu", ["x"], ["soft"])
    elu.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="steepness", type=onnx.AttributeProto.FLOAT))
    return helper.make_function(DOMAIN, name, ["x"], ["y"], [elu, node("Tanh", ["soft"], ["y"])], imports, ["steepness"])


def _is_plain(x: Tensor) -> bool:
    return x.kind == TensorProto.FLOAT


CONTROL = (
    Operator("If", _branch, accepts=_is_plain),
    Operator("Loop", _loop, accepts=_is_plain),
    Operator("function", _call, accepts=_is_plain),
)
