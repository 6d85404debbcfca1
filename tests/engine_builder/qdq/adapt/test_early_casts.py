"""uint8 tensors are cast before they are moved, and the numbers stay the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from calibration.graph.free_names import Names, names_in
from calibration.graph.type_inference import inferred
from engine_builder.qdq.adapt.early_casts import CastBeforeMoves, narrow_types
from tests.model_text import model_from_text, run

PICTURE = """g (uint8[N,10,10,3] x) => (float[N,4,8,8] y) {
    z = Transpose<perm = [0, 3, 1, 2]>(x) t = Resize<mode = "nearest">(z, , twice)
    p = Pad(t, pads, grey) s = Slice(p, starts, ends, axes) c = Concat<axis = 1>(s, s)
    g = Gather<axis = 1>(c, first) f = Cast<to = 1>(g) y = Conv <pads = [1, 1, 1, 1]> (f, w) }"""
CHOSEN = """g (uint8[N,4] x) => (uint8[N,4] echo, float[N,4] y) {
    e = Equal(x, grey) c = Where(e, black, x) echo = Identity(c) f = Cast<to = 1>(c) y = MatMul(f, w) }"""
ADDED = """g (uint8[N,4] x) => (float[N,8] y) {
    c = Concat<axis = 1>(x, x) t = Add(c, grey) f = Cast<to = 1>(t) g = Cast<to = 6>(c) h = Cast<to = 1>(g) y = Add(f, h) }"""
GIVEN_OUT = """g (float[N,6] x) => (uint8[N,6] y) {
    s = Mul(x, scale) b = Clip(s, low, high) q = Cast<to = 2>(b) q0, q1 = Split<axis = 1>(q) y = Concat<axis = 1>(q1, q0) }"""
PLAIN = "g (uint8[N,4] x) => (float[N,4] y) { f = Cast<to = 1>(x) y = MatMul(f, w) }"


def cast_early(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    work = ir.from_proto(inferred(model))
    modified = CastBeforeMoves(Names(names_in(work)))(work).modified
    result: onnx.ModelProto = ir.to_proto(work)
    return result, modified


def made(text: str, weights: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    model = model_from_text(text, weights)
    constants = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "starts": np.array([2, 2]),
        "ends": np.array([10, 10]),
        "axes": np.array([2, 3]),
    }
    constants |= {"twice": np.array([1, 1, 2, 1], dtype=np.float32)}
    constants |= {"first": np.array([0, 1, 2, 5])}
    used = {name for node in model.graph.node for name in node.input}
    for name, array in constants.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    for name, value in (("grey", 114), ("black", 0)):
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.uint8), name))
    return model


def feed(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    dims = [dim.dim_value or 3 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(0).integers(100, 256, dims).astype(np.uint8)}


@pytest.mark.parametrize(
    ("text", "weights"),
    [(PICTURE, {"w": (4, 4, 3, 3)}), (CHOSEN, {"w": (4, 4)}), (ADDED, {})],
    ids=["moved", "compared and given out", "also added"],
)
def test_outputs_are_the_same_to_the_last_bit(text: str, weights: dict[str, tuple[int, ...]]) -> None:
    model = made(text, weights)
    if text is ADDED:  # onnxruntime has no such sum: numpy wraps around, as ONNX does
        result, modified = cast_early(model)
        reader = next(node for node in result.graph.node if node.op_type == "Add")
        narrow = next(node for node in result.graph.node if reader.input[0] in node.output)
        assert modified
        assert (narrow.op_type, narrow.attribute[0].i) == ("Cast", TensorProto.UINT8)
        return
    result, modified = cast_early(model)
    assert modified
    onnx.checker.check_model(result, full_check=True)
    for expected, found in zip(run(model, feed(model)), run(result, feed(model)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("text", "kind"), [(PICTURE, TensorProto.FLOAT), (CHOSEN, TensorProto.INT32)], ids=["moved", "compared"])
def test_nothing_moves_uint8_any_more(text: str, kind: int) -> None:
    model = made(text, {"w": (4, 4, 3, 3) if text is PICTURE else (4, 4)})
    result, _ = cast_early(model)
    (first,) = [node for node in result.graph.node if "x" in node.input]
    assert (first.op_type, first.attribute[0].i) == ("Cast", kind)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred(result).graph.value_info}
    moving = [node for node in result.graph.node if node.op_type not in ("Cast", "Conv", "MatMul")]
    assert moving
    assert all(types.get(name) != TensorProto.UINT8 for node in moving for name in node.input)


def test_a_model_that_casts_first_is_left_alone() -> None:
    model = made(PLAIN, {"w": (4, 4)})
    result, modified = cast_early(model)
    assert not modified
    assert [node.op_type for node in result.graph.node] == ["Cast", "MatMul"]


def test_a_picture_that_is_given_out_is_whole_numbers_until_the_end() -> None:
    model = model_from_text(GIVEN_OUT)
    for name, value in (("scale", 100.0), ("low", 0.0), ("high", 255.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    result, modified = cast_early(model)
    assert modified
    casts = [node.attribute[0].i for node in result.graph.node if node.op_type == "Cast"]
    assert casts == [TensorProto.INT32, TensorProto.INT32, TensorProto.UINT8]
    x = {"x": np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)}
    np.testing.assert_array_equal(run(result, x)[0], run(model, x)[0])


EMBEDDED = """g (int64[N,5] ids) => (float[N,5,4] y) {
    e = Gather(table, ids) f = Cast<to = 1>(e) s = Mul(f, scale) y = MatMul(s, w) }"""
JOINED = """g (int8[N,4] x) => (int8[N,4] c, float[N,4] y) {
    e = Equal(x, three) c = Where(e, zero, x) f = Cast<to = 1>(c) y = MatMul(f, w) }"""


@pytest.mark.parametrize("text", [EMBEDDED, JOINED], ids=["table", "compared and given out"])
def test_constants_of_int8_are_cast_too_and_gone(text: str) -> None:
    model = model_from_text(text, {"w": (4, 4)})
    rng = np.random.default_rng(0)
    constants = {"table": rng.integers(-128, 128, (20, 4)).astype(np.int8), "three": np.array(3, np.int8), "zero": np.array(0, np.int8)}
    constants["scale"] = np.array(0.01, dtype=np.float32)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items() if name in used)
    work = ir.from_proto(inferred(model))
    assert narrow_types(work.graph) == (ir.DataType.UINT8, ir.DataType.INT8)
    CastBeforeMoves(Names(names_in(work)), ir.DataType.INT8)(work)
    result: onnx.ModelProto = ir.to_proto(work)
    assert all(tensor.data_type != TensorProto.INT8 for tensor in result.graph.initializer)
    feeds = {"ids": rng.integers(0, 20, (3, 5))} if text is EMBEDDED else {"x": rng.integers(-5, 5, (3, 4)).astype(np.int8)}
    for expected, found in zip(run(model, feeds), run(result, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_int8_without_a_constant_of_it_is_left_alone() -> None:
    model = model_from_text("g (int8[N,4] x) => (float[4,N] y) { t = Transpose(x) y = Cast<to = 1>(t) }")
    assert narrow_types(ir.from_proto(inferred(model)).graph) == (ir.DataType.UINT8,)
