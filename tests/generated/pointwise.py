"""Operators that compute each value from those at its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import TensorProto

from tests.generated.graphs import Attributes, GraphBuilder, Tensor
from tests.generated.operators import Operator, broadcast_constant, partner

_FP32 = (TensorProto.FLOAT,)


def _is_plain(x: Tensor) -> bool:
    return x.kind in _FP32


def _is_exact(x: Tensor) -> bool:
    return x.is_float and x.exact


def _increasing(name: str, function: Callable[[float], float], most: float, attributes: Attributes, b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, min(most, 1e5))
    return b.node(name, [x], x, bounds=(function(x.low), function(x.high)), **attributes)


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def _wavy(name: str, attributes: Attributes, b: GraphBuilder, x: Tensor) -> Tensor:
    """Add one of GELU's kind: never above its input, and at least -0.4."""
    return b.node(name, [x], x, bounds=(min(-0.4, x.low) if x.low < 0 else 0.0, max(x.high, 0.0)), **attributes)


def _periodic(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 20.0)
    return b.node(name, [x], x, bounds=(-1.0, 1.0))


def _absolute(b: GraphBuilder, x: Tensor) -> Tensor:
    return b.node("Abs", [x], x, bounds=(0.0, x.bound), exact=x.exact)


def _negated(b: GraphBuilder, x: Tensor) -> Tensor:
    return b.node("Neg", [x], x, bounds=(-x.high, -x.low), exact=x.exact)


def _positive(b: GraphBuilder, x: Tensor, least: float) -> Tensor:
    """Return a tensor of values from ``least`` on."""
    if x.low >= least:
        return x
    y = x if x.low >= 0.0 else _absolute(b, x)
    return b.node("Add", [y, b.scalar(least, y.kind)], y, bounds=(least, y.high + least))


def _square_root(b: GraphBuilder, x: Tensor) -> Tensor:
    y = _positive(b, x, 0.05)
    return b.node("Sqrt", [y], y, bounds=(y.low**0.5, y.high**0.5))


def _logarithm(b: GraphBuilder, x: Tensor) -> Tensor:
    y = _positive(b, x, 0.1)
    return b.node("Log", [y], y, bounds=(float(np.log(y.low)), float(np.log(y.high))))


def _reciprocal(b: GraphBuilder, x: Tensor) -> Tensor:
    y = _positive(b, x, 0.25)
    return b.node("Reciprocal", [y], y, bounds=(0.0, 1 / y.low))


def _power(b: GraphBuilder, x: Tensor) -> Tensor:
    x = b.calm(x, 20.0 if x.kind == TensorProto.FLOAT16 else 100.0)
    exponent = b.choices.of((2.0, 3.0, 0.5))
    x = _positive(b, x, 0.05) if exponent == 0.5 else x
    most = x.bound**exponent
    return b.node("Pow", [x, b.scalar(exponent, x.kind)], x, bounds=(-most if exponent == 3.0 else 0.0, most))


def _parametric(b: GraphBuilder, x: Tensor) -> Tensor:
    channels = x.size(1) if x.rank > 1 and x.has_fixed(1) else 1
    slopes = b.floats(b.rng.uniform(0.01, 0.5, [channels, *[1] * (x.rank - 2)] if x.rank > 1 else [1]), x.kind)
    return b.node("PRelu", [x, slopes], x, bounds=(-x.bound, x.bound))


def _clip(b: GraphBuilder, x: Tensor) -> Tensor:
    low, high = b.choices.of(((0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (-0.5, 2.0)))
    if b.opset < 11:
        return b.clip(x, low, high)
    return b.clip(x, b.choices.of((low, None)), b.choices.of((high, None)))


def _dropout(b: GraphBuilder, x: Tensor) -> Tensor:
    if b.opset < 12:
        return b.node("Dropout", [x], x, exact=x.exact, ratio=0.3)
    return b.node("Dropout", [x, b.constant(np.array(0.3, np.float32), "ratio")] if b.choices.chance(50) else [x], x, exact=x.exact)


def _stepped(name: str, b: GraphBuilder, x: Tensor) -> Tensor:
    bounds = (-1.0, 1.0) if name == "Sign" else (float(np.floor(x.low)), float(np.ceil(x.high)))
    return b.node(name, [x], x, bounds=bounds, exact=True)


def _arithmetic(b: GraphBuilder, x: Tensor) -> Tensor:
    """Add, Sub, Mul or Div of two computed tensors, or of one and a constant on either side."""
    name = b.choices.of(("Add", "Mul", "Sub", "Div"))
    other = partner(b, x) if b.choices.chance(60) else None
    if other is None:
        x = b.calm(x)
        constant = broadcast_constant(b, x, 0.5, 1.5)
        first = b.choices.chance(30) and name != "Div"
        most = x.bound * 2 + 1.5
        return b.node(name, [constant, x] if first else [x, constant], x, bounds=(-most, most))
    x, other = b.calm(x), b.calm(other, 20.0 if name in ("Mul", "Div") else None)
    if name == "Div":
        other = _positive(b, other, 0.25)
        return b.node(name, [x, other], x, bounds=(-4 * x.bound, 4 * x.bound))
    if name == "Mul":
        most = x.bound * other.bound
        return b.node(name, [x, other], x, bounds=(-most, most))
    low, high = (other.low, other.high) if name == "Add" else (-other.high, -other.low)
    return b.node(name, [x, other], x, bounds=(x.low + low, x.high + high))


def _variadic(b: GraphBuilder, x: Tensor) -> Tensor:
    name = b.choices.of(("Max", "Min", "Sum", "Mean"))
    given = [x]
    for _ in range(b.choices.below(3)):
        other = partner(b, x)
        if other is not None:
            given.append(b.calm(other))
    low, high = min(one.low for one in given), max(one.high for one in given)
    times = len(given) if name == "Sum" else 1
    exact = name in ("Max", "Min") and all(one.exact for one in given)
    return b.node(name, given, x, bounds=(low * times if low < 0 else low, high * times if high > 0 else high), exact=exact)


def _compared(b: GraphBuilder, x: Tensor) -> Tensor:
    """Return a boolean tensor: ``x``, which is exact, beside a constant."""
    options = ("Greater", "Less", *(("GreaterOrEqual", "LessOrEqual") if b.opset >= 12 else ()), *(("Equal",) if b.opset >= 11 else ()))
    middle = (x.low + x.high) / 2
    made = b.node(b.choices.of(options), [x, b.scalar(middle, x.kind)], x, kind=TensorProto.BOOL, bounds=(0, 1), exact=True)
    if b.choices.chance(30):
        made = b.node("Not", [made], made, exact=True)
    if b.choices.chance(20):
        other = b.node("Less", [x, b.scalar(x.high / 2, x.kind)], x, kind=TensorProto.BOOL, bounds=(0, 1), exact=True)
        made = b.node(b.choices.of(("And", "Or", "Xor")), [made, other], made, exact=True)
    return made


def _where(b: GraphBuilder, x: Tensor) -> Tensor:
    """Choose by a condition between a tensor and another one or a constant."""
    sources = [one for one in b.pool if one.exact and one.is_float and one.shape == x.shape and one.kind in _FP32]
    if sources:
        condition = _compared(b, b.choices.of(sources))
    else:
        shape = [x.size(-1)] if x.rank > 1 and x.has_fixed(-1) else [1]
        condition = Tensor(b.constant(b.rng.random(shape) < 0.5), TensorProto.BOOL, tuple(shape), 0, 1)
    other = partner(b, x)
    low, high = (other.low, other.high) if other is not None else (-2.0, 2.0)
    second = other if other is not None else b.scalar(float(b.rng.uniform(-2, 2)), x.kind)
    return b.node("Where", [condition, *b.choices.of(([x, second], [second, x]))], x, bounds=(min(x.low, low), max(x.high, high)))


def _as_number(b: GraphBuilder, x: Tensor) -> Tensor:
    """Turn a comparison into numbers and weigh the tensor with them."""
    mask = b.cast(_compared(b, x), x.kind)
    return b.node("Mul", [x, mask], x, bounds=(min(x.low, 0.0), max(x.high, 0.0)), exact=True)


def _is_nan(b: GraphBuilder, x: Tensor) -> Tensor:
    condition = b.node("IsNaN", [x], x, kind=TensorProto.BOOL, bounds=(0, 0), exact=True)
    return b.node("Where", [condition, b.scalar(0.0, x.kind), x], x, bounds=(min(x.low, 0.0), max(x.high, 0.0)), exact=x.exact)


def _in_other_type(b: GraphBuilder, x: Tensor) -> Tensor:
    """Compute a few operators in another float type."""
    kind = b.choices.of((TensorProto.FLOAT16, TensorProto.DOUBLE, *((TensorProto.BFLOAT16,) if b.opset >= 13 else ())))
    y = b.cast(b.calm(x, 100.0), kind)
    for _ in range(b.choices.between(1, 3)):
        options = [one for one in TYPED if one.fits(b, y)]
        y = b.calm(b.choices.of(options).grow(b, y))
    return b.cast(y, x.kind)


def _whole_numbers(b: GraphBuilder, x: Tensor) -> Tensor:
    """Go through integers and back."""
    y = b.cast(
        b.node("Floor", [x], x, bounds=(np.floor(x.low), np.floor(x.high)), exact=True),
        b.choices.of((TensorProto.INT64, TensorProto.INT32)),
    )
    dtype = np.int64 if y.kind == TensorProto.INT64 else np.int32
    y = b.node(b.choices.of(("Add", "Mul")), [y, b.constant(np.array(2, dtype))], y, bounds=(2 * y.low - 2, 2 * y.high + 2), exact=True)
    if b.opset >= 10 and b.choices.chance(40):
        y = b.node("Mod", [y, b.constant(np.array(3, dtype))], y, bounds=(0, 2), exact=True)
    return b.cast(y, x.kind)


def _table(*rows: tuple[str, Callable[[float], float], float, Attributes, int]) -> tuple[Operator, ...]:
    return tuple(
        Operator(name, partial(_increasing, name, function, most, attributes), since=since)
        for name, function, most, attributes, since in rows
    )


TYPED = (  # those with few kernels in 16 bits or in double
    *_table(
        ("Relu", lambda v: max(v, 0.0), 1e9, {}, 9),
        ("Sigmoid", _sigmoid, 80.0, {}, 9),
        ("Tanh", lambda v: float(np.tanh(v)), 1e9, {}, 9),
    ),
    Operator("arithmetic", _arithmetic),
    Operator("Sqrt", _square_root),
    Operator("Abs", _absolute),
)
POINTWISE = (
    *TYPED,
    *_table(
        ("LeakyRelu", lambda v: v if v > 0 else 0.1 * v, 1e9, {"alpha": 0.1}, 9),
        ("Elu", lambda v: v if v > 0 else float(np.expm1(v)), 1e9, {}, 9),
        ("Selu", lambda v: 1.06 * v if v > 0 else 1.76 * float(np.expm1(v)), 1e9, {}, 9),
        ("Softplus", lambda v: float(np.logaddexp(v, 0)), 80.0, {}, 9),
        ("Softsign", lambda v: v / (1 + abs(v)), 1e9, {}, 9),
        ("HardSigmoid", lambda v: float(np.clip(0.2 * v + 0.5, 0, 1)), 1e9, {}, 9),
        ("ThresholdedRelu", lambda v: max(v, 0.0), 1e9, {"alpha": 0.0}, 10),
        ("Erf", lambda v: float(np.sign(v)), 1e9, {}, 9),
        ("Atan", lambda v: float(np.arctan(v)), 1e9, {}, 9),
        ("Exp", lambda v: float(np.exp(v)), 5.0, {}, 9),
        ("Sinh", lambda v: float(np.sinh(v)), 5.0, {}, 9),
        ("Asinh", lambda v: float(np.arcsinh(v)), 1e4, {}, 9),
        ("Identity", lambda v: v, 1e9, {}, 9),
    ),
    Operator(
        "Celu",
        partial(_increasing, "Celu", lambda v: v if v > 0 else 0.8 * float(np.expm1(v / 0.8)), 1e9, {"alpha": 0.8}),
        accepts=_is_plain,
        since=12,
    ),
    Operator("Gelu", partial(_wavy, "Gelu", {}), since=20),
    Operator("Gelu tanh", partial(_wavy, "Gelu", {"approximate": "tanh"}), since=20),
    Operator("Mish", partial(_wavy, "Mish", {}), since=18),
    Operator("HardSwish", partial(_wavy, "HardSwish", {}), since=14),
    Operator("Sin", partial(_periodic, "Sin")),
    Operator("Cos", partial(_periodic, "Cos")),
    Operator("Neg", _negated),
    Operator("Log", _logarithm),
    Operator("Reciprocal", _reciprocal),
    Operator("Pow", _power, accepts=_is_plain),
    Operator("PRelu", _parametric),
    Operator("Clip", _clip, accepts=_is_plain),
    Operator("Dropout", _dropout),
    Operator("variadic", _variadic),
    Operator("Where", _where, accepts=_is_plain),
    Operator("IsNaN", _is_nan, accepts=_is_plain),
    Operator("another type", _in_other_type, accepts=_is_plain),
    *(
        Operator(name, partial(_stepped, name), accepts=_is_exact, since=11 if name == "Round" else 9)
        for name in ("Floor", "Ceil", "Round", "Sign")
    ),
    Operator("comparison", _as_number, accepts=lambda x: x.exact and x.kind in _FP32),
    Operator("whole numbers", _whole_numbers, accepts=lambda x: x.exact and x.kind in _FP32),
)
