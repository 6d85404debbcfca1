"""What FP16 cannot hold stays in float32, and no more than that."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from calibration.graph.type_inference import inferred
from engine_builder.qdq.rules.fp16_overflow import float32_in_any_engine, float32_nodes
from tests.model_text import model_from_text


def kept(text: str, ranges: dict[str, tuple[float, float]] | None = None, **constants: float | list[float]) -> set[str]:
    model = model_from_text(text, {"w": (4, 4)})
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    for node in model.graph.node:
        node.name = node.output[0]
    return set(float32_nodes(ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph, ranges or {}))


def test_an_attention_mask_keeps_float32_up_to_the_softmax() -> None:
    text = """g (float[N,4] x, float[N,4] m) => (float[N,4] y) {
        a = MatMul(x, w) b = Mul(m, low) c = Add(a, b) p = Softmax(c) y = MatMul(p, w) }"""
    assert kept(text, low=-3.4e38) == {"b", "c", "p"}
    assert kept(text, low=-10000.0) == set()
    assert kept(text, low=-np.inf) == set()


def test_a_measured_range_stops_what_a_large_constant_starts() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { a = Mul(x, big) b = MatMul(a, w) c = Relu(b) y = MatMul(c, w) }"
    assert kept(text, big=1e6) == {"a", "b", "c", "y"}
    assert kept(text, {"a": (-1e6, 1e6), "b": (-2e5, 9.0), "c": (0.0, 9.0)}, big=1e6) == {"a", "b", "c"}


def test_a_normalization_is_kept_whole_up_to_its_division() -> None:
    text = """g (float[N,4] x) => (float[N,4] y) {
        m = ReduceMean<axes=[1]>(x) d = Sub(x, m) s = Pow(d, two) v = ReduceMean<axes=[1]>(s)
        e = Add(v, tiny) r = Sqrt(e) n = Div(d, r) y = MatMul(n, w) }"""
    assert kept(text, two=2.0, tiny=1e-12) == {"s", "v", "e", "r", "n"}


def test_a_small_number_that_fp16_holds_starts_nothing() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { a = Add(x, small) y = MatMul(a, w) }"
    assert kept(text, small=1e-6) == set()
    assert kept(text, small=[1e-12, 1.0, 1.0, 1.0]) == set()


RECURRENT = """g (float[N,5,4] x, int32[N] lengths) => (float[N,4] y) {
    m = MatMul(x, w) r = Relu(m) t = Transpose<perm = [1, 0, 2]>(r) o, h = GRU<hidden_size = 4>(t, wr, rr, LENGTHS)
    s = ReduceMean<axes = [0], keepdims = 0>(h) y = MatMul(s, w) }"""


def in_any_engine(text: str) -> set[str]:
    model = model_from_text(text, {"w": (4, 4), "wr": (1, 12, 4), "rr": (1, 12, 4)})
    for node in model.graph.node:
        node.name = node.output[0]
    return set(float32_in_any_engine(ir.from_proto(inferred(model)).graph))


def test_a_recurrent_operator_with_lengths_is_in_float32_with_what_feeds_it_back_to_the_layer() -> None:
    assert in_any_engine(RECURRENT.replace("LENGTHS", ", lengths")) == {"r", "t", "o"}


def test_a_recurrent_operator_without_lengths_may_have_16_bits() -> None:
    assert in_any_engine(RECURRENT.replace(", LENGTHS", "")) == set()
