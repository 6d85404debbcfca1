"""Sizes, positions and counts keep float32, and 16 bits begin at activations."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from calibration.graph.type_inference import inferred
from engine_builder.qdq.rules.positions import counting_nodes
from tests.model_text import model_from_text

CONSTANTS: dict[str, tuple[str, list[float]]] = {
    "zero": ("float32", []),
    "step": ("float32", []),
    "half": ("float32", [0.5]),
    "freq": ("float32", [1.0, 0.1, 0.01, 0.001]),
    "first": ("int64", [0.0]),
    "axis": ("int64", [1.0]),
}


def counting(text: str) -> set[str]:
    model = model_from_text(text, {"w": (4, 4)})
    for name, (kind, values) in CONSTANTS.items():
        array = np.array(values or float(name == "step"), dtype=kind)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = next(name for name in node.output if name)
    onnx.checker.check_model(model)
    return set(counting_nodes(ir.from_proto(inferred(model)).graph))


def test_a_range_of_floats_and_the_table_made_of_it_keep_float32_up_to_the_activation() -> None:
    assert counting("""g (float[N,T,4] x) => (float[N,T,4] y) {
        s = Shape<start = 1, end = 2>(x) f = Cast<to = 1>(s) t = Squeeze(f) r = Range(zero, t, step) u = Unsqueeze(r, axis)
        a = Mul(u, freq) p = Sin(a) m = MatMul(x, w) y = Add(m, p) }""") == {"f", "t", "r", "u", "a", "p"}


def test_positions_that_are_an_input_keep_float32() -> None:
    assert counting("""g (float[N,4] x, int64[N,1] t) => (float[N,4] y) {
        f = Cast<to = 1>(t) a = Mul(f, freq) p = Cos(a) m = MatMul(p, w) y = Add(x, m) }""") == {"f", "a", "p"}


def test_a_comparison_of_positions_is_one_of_float32() -> None:
    assert counting("""g (float[N,4] x, int32[N,1] n) => (float[N,4] y) {
        f = Cast<to = 1>(n) b = Less(freq, f) m = MatMul(x, w) y = Where(b, m, zero) }""") == {"f", "b"}


@pytest.mark.parametrize("kind", ["uint8", "bool", "int8"])
def test_pictures_and_flags_are_activations(kind: str) -> None:
    assert counting(f"g ({kind}[N,4] x) => (float[N,4] y) {{ f = Cast<to = 1>(x) s = Mul(f, half) y = MatMul(s, w) }}") == set()


def test_an_embedding_of_ids_is_an_activation() -> None:
    assert counting("g (int64[N] x) => (float[N,4] y) { e = Gather(w, x) s = Mul(e, half) y = MatMul(s, w) }") == set()


def test_what_becomes_an_index_keeps_float32_back_to_the_layer() -> None:
    assert counting("""g (float[N,4] x) => (float[N,4] y) {
        m = MatMul(x, w) e = Exp(m) d = Ceil(e) c = Cast<to = 7>(d) l = ReduceMax(c) y = MatMul(x, w) }""") == {"e", "d"}


def test_scales_of_a_resize_keep_float32() -> None:
    assert counting("""g (float[N,4,6,6] x) => (float[N,4,H,W] y) {
        s = Shape(x) f = Cast<to = 1>(s) two = Add(f, f) q = Div(two, f) a = Relu(x) y = Resize(a, , q) }""") == {"f", "two", "q"}
