"""Whole models: inputs, what grows on them, outputs; with samples that fit, and one Conv, Gemm or MatMul with a weight at least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.generated.choices import Choices
from tests.generated.control import CONTROL, DOMAIN
from tests.generated.graphs import Array, Dim, GraphBuilder, Shared, Tensor, dtype_of, value_info
from tests.generated.moving import MOVING
from tests.generated.names import NodeNames, TensorNames
from tests.generated.operators import Operator, axes_form, rest_of, without
from tests.generated.pointwise import POINTWISE
from tests.generated.reducing import REDUCING
from tests.generated.weighted import GEMM, WEIGHTED

FAMILIES: tuple[tuple[Operator, ...], ...] = (WEIGHTED, POINTWISE, WEIGHTED, MOVING, REDUCING, POINTWISE, WEIGHTED, CONTROL)
_OPSETS = (17, 13, 9, 11, 18, 20, 21, 22, 23, 10, 12, 14, 15, 16, 19)
_MOST_VALUES = 4000  # of a tensor and sample
_UNITS: dict[int, float] = {
    TensorProto.FLOAT: 2.0**-24,
    TensorProto.DOUBLE: 2.0**-24,
    TensorProto.FLOAT16: 2.0**-11,
    TensorProto.BFLOAT16: 2.0**-8,
}


@dataclass(frozen=True)
class Generated:
    """A model and how it is used."""

    model: onnx.ModelProto
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sizes: Mapping[str, int]
    batch: int | None  # samples of a call, where the model fixes them
    operators: tuple[str, ...]
    seed: int  # of the values
    unit: float  # rounding of the coarsest float type inside

    def samples(self, count: int, *, seed: int = 0) -> dict[str, Array]:
        """Return ``count`` random samples by input name."""
        rng = np.random.default_rng([self.seed, seed])
        return {x.name: _values(x, (count, *(d if isinstance(d, int) else self.sizes[d] for d in x.shape[1:])), rng) for x in self.inputs}


def generate(choices: Choices) -> Generated:
    """Return the model that these choices make."""
    opset = choices.of(_OPSETS)
    seed = choices.below(1 << 16)
    sizes = {"N": 1, "L": 6, "H": 8, "W": 10}
    shared = Shared(choices, np.random.default_rng(seed), opset, TensorNames(choices), NodeNames(choices), sizes, {}, {}, [])
    batch = choices.of((None, None, None, 1, None, 2))
    kind = choices.of(
        (TensorProto.FLOAT,) * 8 + (TensorProto.FLOAT16, *((TensorProto.BFLOAT16,) if opset >= 13 else (TensorProto.FLOAT16,)))
    )
    b = GraphBuilder(shared)
    outside = TensorProto.FLOAT if kind == TensorProto.BFLOAT16 else kind
    inputs = [_input(b, "N" if batch is None else batch, outside) for _ in range(choices.of((1, 1, 2, 1, 3)))]
    heads = [_computed(b, x, kind) for x in inputs]
    b.pool.extend(heads)
    for index in range(choices.between(1, 14)):
        _grow(b, choices.of(FAMILIES) if index else WEIGHTED)
    outputs = _outputs(b, inputs)
    if not _has_live_layer(b, outputs):
        outputs[0] = _linear(b, outputs[0])
    return _finished(b, inputs, outputs, batch, seed)


def _input(b: GraphBuilder, n: Dim, kind: int) -> Tensor:
    """Return a graph input: an image, a sequence, a row, a signal, tokens, a picture of bytes, or a mask."""
    choices = b.choices
    form = choices.of(
        ("row", "image", "sequence", "signal", "tokens", "bytes", "mask")
        if b.pool
        else ("row", "image", "sequence", "signal", "tokens", "bytes")
    )
    is_dynamic = choices.chance(25)
    height, width, length = ("H", "W", "L") if is_dynamic else (choices.of((8, 6, 7)), 8, choices.of((6, 5, 8)))
    shapes: dict[str, tuple[Dim, ...]] = {
        "row": (n, choices.of((6, 8, 16))),
        "image": (n, choices.of((3, 4, 1)), height, width),
        "sequence": (n, length, choices.of((8, 6))),
        "signal": (n, choices.of((4, 2)), length),
        "tokens": (n, length),
        "bytes": (n, 3, height, width),
        "mask": (n, length),
    }
    name = b.shared.tensor_names.new("input")
    if form == "tokens":
        return Tensor(name, choices.of((TensorProto.INT64, TensorProto.INT32)), shapes[form], 0, 9, exact=True)
    if form == "bytes":
        return Tensor(name, TensorProto.UINT8, shapes[form], 0, 255, exact=True)
    if form == "mask":
        return Tensor(name, choices.of((TensorProto.BOOL, TensorProto.INT64)), shapes[form], 0, 1, exact=True)
    kind = TensorProto.DOUBLE if kind == TensorProto.FLOAT and choices.chance(5) else kind
    return Tensor(name, kind, shapes[form], -4.0, 4.0, exact=True)


def _computed(b: GraphBuilder, x: Tensor, kind: int) -> Tensor:
    """Return floats made of an input: itself, embedded tokens, scaled bytes."""
    if x.is_float:
        return b.cast(x, kind)
    if x.kind in (TensorProto.INT64, TensorProto.INT32) and x.high > 1:
        width = b.choices.of((8, 6))
        table = b.rng.normal(size=(10, width)).clip(-3, 3)
        return b.node("Gather", [b.floats(table, kind), x], x, kind=kind, shape=(*x.shape, width), bounds=(-3, 3), exact=True)
    floats = b.cast(x, kind)
    if x.kind == TensorProto.UINT8:
        return b.node("Div", [floats, b.scalar(64.0, kind)], floats, bounds=(0, 4), exact=True)  # a power of two: exact
    return floats


def _grow(b: GraphBuilder, family: tuple[Operator, ...]) -> None:
    """Apply an operator of the family to one of the newest tensors, if there is one that fits."""
    candidates = [x for x in b.pool if x.is_float and x.rank > 0 and _is_small(b, x)]
    x = candidates[-1 - min(b.choices.of((0, 0, 0, 0, 1, 2)), len(candidates) - 1)]
    options = [one for one in family if one.fits(b, x)]
    if options:
        b.pool.append(b.choices.of(options).grow(b, x))


def _linear(b: GraphBuilder, x: Tensor) -> Tensor:
    """Return a Gemm of the tensor, made one row of a sample first."""
    x = b.cast(x, TensorProto.FLOAT) if x.kind == TensorProto.DOUBLE or not x.is_float else x
    if x.rank < 2:
        x = b.node("Reshape", [x, b.ints(-1, 1)], x, shape=(x.shape[0], 1))
    dynamic = tuple(axis for axis in range(1, x.rank) if not x.has_fixed(axis))
    if dynamic:
        inputs, attributes = axes_form(b, dynamic, 18)
        x = b.node("ReduceMean", [x, *inputs], x, shape=without(x.shape, dynamic, keeps=True), **attributes)
    if x.rank > 2:
        x = b.node("Reshape", [x, b.ints(0, -1)], x, shape=(x.shape[0], rest_of(x) or 1))
    y = GEMM.grow(b, x)
    return b.cast(y, TensorProto.FLOAT) if y.kind == TensorProto.BFLOAT16 else y


def _has_live_layer(b: GraphBuilder, outputs: list[Tensor]) -> bool:
    """Return whether an output is made with a layer whose weight is a constant of at most 32 bits."""
    constants = {tensor.name for tensor in b.initializers if tensor.data_type != TensorProto.DOUBLE and len(tensor.dims) > 1}
    wanted = {x.name for x in outputs}
    for node in reversed(b.nodes):
        if wanted.isdisjoint(node.output):
            continue
        if node.op_type in ("Conv", "Gemm", "MatMul") and not constants.isdisjoint(node.input[:2]):
            return True
        wanted.update(node.input)
    return False


def _is_small(b: GraphBuilder, x: Tensor) -> bool:
    return int(np.prod(b.concrete(x.shape[1:]))) <= _MOST_VALUES


def _outputs(b: GraphBuilder, inputs: list[Tensor]) -> list[Tensor]:
    """Return the newest tensor and some others; a float one of several values comes first."""
    made = [x for x in b.pool if x not in inputs and x.kind not in (TensorProto.BFLOAT16,) and x.rank > 0]
    if not made or not made[-1].is_float:
        last = next(x for x in reversed(b.pool) if x.is_float)
        made.append(b.cast(b.node("Identity", [last], last, exact=last.exact), TensorProto.FLOAT))
    last = made[-1]
    if last.name in {x.name for x in inputs}:
        last = b.node("Identity", [last], last, exact=last.exact)
    found = [last]
    for _ in range(b.choices.of((0, 0, 1, 2))):
        other = made[-1 - b.choices.below(len(made))]
        if other.name not in {x.name for x in (*found, *inputs)}:
            found.append(other)
    if b.choices.chance(8):
        found.append(_odd_output(b, found, inputs))
    return found


def _odd_output(b: GraphBuilder, found: list[Tensor], inputs: list[Tensor]) -> Tensor:
    """Return an output as few models have one: an input, a constant, or a tensor with the samples on its second axis."""
    way = b.choices.below(3)
    last = found[0]
    if way == 2 and last.rank > 1:
        order = [1, 0, *range(2, last.rank)]
        turned = b.node("Transpose", [last], last, shape=[last.shape[axis] for axis in order], exact=last.exact, perm=order)
        return replace(turned, sample_axis=1)
    if way == 1:
        name = b.shared.tensor_names.new("anchors")
        b.initializers.append(numpy_helper.from_array(b.rng.normal(size=(3, 4)).astype(np.float32), name))
        return Tensor(name, TensorProto.FLOAT, (3, 4), -9, 9, exact=True)
    return inputs[0]


def _finished(b: GraphBuilder, inputs: list[Tensor], outputs: list[Tensor], batch: int | None, seed: int) -> Generated:
    choices = b.choices
    dims = {"N": choices.of(("N", "batch_size", "", "unk__0")), **{name: name for name in b.shared.sizes if name != "N"}}
    given = [value_info(x, dims=dims) for x in inputs]
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in b.initializers] if choices.chance(8) else []
    hides_shapes = choices.chance(10)
    graph = helper.make_graph(
        b.nodes, "generated", [*given, *listed], [value_info(y, has_shape=not hides_shapes, dims=dims) for y in outputs], b.initializers
    )
    functions = list(b.shared.functions.values())
    imports = [helper.make_opsetid("", b.opset), *([helper.make_opsetid(DOMAIN, 1)] if functions else [])]
    ir_version = 10 if b.opset > 20 else 8 if functions or choices.chance(50) else 9
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=ir_version, producer_name="generator")
    kinds = {x.kind for x in (*b.pool, *outputs) if x.is_float} | _cast_kinds(b.nodes)
    unit = max(_UNITS[kind] for kind in {*kinds, TensorProto.FLOAT})
    return Generated(model, tuple(inputs), tuple(outputs), dict(b.shared.sizes), batch, tuple(b.shared.used), seed, unit)


def _cast_kinds(nodes: list[onnx.NodeProto]) -> set[int]:
    found: set[int] = set()
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in _UNITS:
                found.add(attribute.i)
            if attribute.HasField("g"):
                found |= _cast_kinds(list(attribute.g.node))
    return found


def _values(x: Tensor, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    dtype = dtype_of(x.kind)
    if x.is_float:
        drawn = rng.normal(size=shape).clip(x.low, x.high).astype(np.float16)  # which a baseline in FP16 reads exactly, too
        return np.asarray(drawn.astype(dtype))
    return np.asarray(rng.integers(int(x.low), int(x.high) + 1, shape).astype(dtype))
