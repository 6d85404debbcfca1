"""What FP16 cannot hold stays in float32, and no more than that."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from engine_builder.qdq.islands import float32_nodes
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
