"""An If with a constant condition gives way to the branch it takes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from calibration.graph_passes.normalize import prepare
from tests.model_text import model_from_text, one_batch, run

WEIGHTS = {"w1": (6, 3), "w2": (6, 3)}


def branching(condition: str, inputs: str = "float[N,6] x") -> onnx.ModelProto:
    return model_from_text(
        f"""g ({inputs}) => (float[N,3] y, float[N,3] z) {{
            {condition}
            y, z = If(c) <
                then_branch = a () => (float[N,3] p, float[N,3] x2) {{ h = MatMul(x, w1) p = Relu(h) x2 = Neg(h) }},
                else_branch = b () => (float[N,3] q, float[N,3] h) {{ h = MatMul(x, w2) q = Tanh(h) }}
            >
        }}""",
        WEIGHTS,
    )


@pytest.mark.parametrize(("number", "kept"), [(1, ["MatMul", "Relu", "Neg"]), (2, ["MatMul", "Tanh"])])
def test_the_branch_taken_stands_in_the_graph(number: int, kept: list[str]) -> None:
    model = branching(f"one = Constant<value = int64 {{1}}>() n = Constant<value = int64 {{{number}}}>() c = Equal(n, one)")
    prepared = prepare(model)
    assert [node.op_type for node in prepared.model.graph.node] == kept
    assert "1 If with a constant condition replaced by the branch taken" in prepared.notes
    feeds = one_batch(model)
    for before, after in zip(run(model, feeds), run(prepared.model, feeds), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_condition_that_an_input_decides_stays() -> None:
    model = branching("one = Constant<value = int64[1] {1}>() e = Equal(n, one) c = Squeeze(e)", "float[N,6] x, int64[1] n")
    prepared = prepare(model)
    assert [node.op_type for node in prepared.model.graph.node][-1] == "If"
    assert not any("If" in note for note in prepared.notes)


def test_names_of_both_branches_and_the_graph_stay_apart() -> None:
    model = model_from_text(
        """g (float[N,6] x) => (float[N,3] y, float[N,3] z) {
            c = Constant<value = bool {1}>()
            y = If(c) <
                then_branch = a () => (float[N,3] p) { h = MatMul(x, w1) p = Relu(h) },
                else_branch = b () => (float[N,3] q) { q = MatMul(x, w2) }
            >
            z = If(c) <
                then_branch = d () => (float[N,3] p) { h = MatMul(x, w2) p = Tanh(h) },
                else_branch = e () => (float[N,3] q) { q = MatMul(x, w1) }
            >
        }""",
        WEIGHTS,
    )
    prepared = prepare(model).model
    assert sorted(node.op_type for node in prepared.graph.node) == ["MatMul", "MatMul", "Relu", "Tanh"]
    feeds = one_batch(model)
    for before, after in zip(run(model, feeds), run(prepared, feeds), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_branch_that_hands_on_a_tensor_or_a_constant_of_its_own() -> None:
    model = model_from_text(
        """g (float[N,6] x) => (float[N,6] y, float[N,3] z) {
            c = Constant<value = bool {1}>()
            y = If(c) <
                then_branch = a () => (float[N,6] p) { two = Constant<value = float {2.0}>() p = Mul(x, two) },
                else_branch = b () => (float[N,6] q) { q = Identity(x) }
            >
            z = MatMul(y, w1)
        }""",
        WEIGHTS,
    )
    feeds = one_batch(model)
    for before, after in zip(run(model, feeds), run(prepare(model).model, feeds), strict=True):
        np.testing.assert_array_equal(before, after)
