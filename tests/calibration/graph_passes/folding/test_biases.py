from __future__ import annotations

import numpy as np
import onnx
import pytest

from calibration.graph_passes.normalize import prepare
from tests.calibration.graph_passes.folding.runtime_kernels import kernels_of
from tests.model_text import model_from_text, one_batch, run


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize(
    ("text", "weight", "channels"),
    [
        ("g (float[N,4,5,5] x) => (float[N,6,3,3] y) { y = Conv<group=2>(x, w) }", (6, 2, 3, 3), 6),
        ("g (float[N,4,5,5] x) => (float[N,6,7,7] y) { y = ConvTranspose<group=2>(x, w) }", (4, 3, 3, 3), 6),
        ("g (float[N,4] x) => (float[N,6] y) { y = Gemm<transB=1>(x, w) }", (6, 4), 6),
    ],
)
def test_a_layer_without_a_bias_gets_zeros(text: str, weight: tuple[int, ...], channels: int) -> None:
    model = model_from_text(text, {"w": weight})
    prepared = prepare(model)
    (node,) = prepared.model.graph.node
    np.testing.assert_array_equal(constants(prepared.model)[node.input[2]], np.zeros(channels))
    np.testing.assert_array_equal(run(prepared.model, one_batch(model))[0], run(model, one_batch(model))[0])
    assert prepared.notes == ()


def test_a_product_without_a_bias_stays_without() -> None:
    prepared = prepare(model_from_text("g (float[N,2,4] x) => (float[N,2,6] y) { y = MatMul(x, w) }", {"w": (4, 6)}))
    assert [node.op_type for node in prepared.model.graph.node] == ["MatMul"]


@pytest.mark.parametrize(
    "body",
    [
        "m = MatMul(x, w) y = Add(one, m)",
        "m = MatMul(x, w) y = Sub(m, one)",
        "m = MatMul(x, w) a = Add(m, many) y = Mul(a, square) many_again = Identity(many)",
    ],
)
def test_what_is_added_to_a_product_becomes_a_bias_of_its_own(body: str) -> None:
    outputs = "float[N,2,4] y, float[4] many_again" if "many_again" in body else "float[N,2,4] y"
    model = model_from_text(f"g (float[N,2,4] x) => ({outputs}) {{ {body} }}", {"w": (4, 4), "one": (1,), "many": (4,), "square": (2, 4)})
    prepared = prepare(model).model
    product, add = prepared.graph.node[:2]
    assert (product.op_type, add.op_type) == ("MatMul", "Add")
    (bias,) = [name for name in add.input if name != product.output[0]]
    assert constants(prepared)[bias].shape == (4,)
    assert sum(bias in node.input for node in prepared.graph.node) == 1
    assert bias not in {value.name for value in prepared.graph.output}
    np.testing.assert_allclose(run(prepared, one_batch(model))[0], run(model, one_batch(model))[0], rtol=1e-6)  # float32 rounding


def test_a_bias_of_one_number_has_one_for_each_channel() -> None:
    model = model_from_text("g (float[N,4] x) => (float[N,6] y) { y = Gemm(x, w, b) }", {"w": (4, 6), "b": (1,)})
    prepared = prepare(model).model
    assert constants(prepared)[prepared.graph.node[0].input[2]].shape == (6,)
    np.testing.assert_array_equal(run(prepared, one_batch(model))[0], run(model, one_batch(model))[0])


def test_zeros_for_a_bias_add_no_node_to_what_the_runtime_runs() -> None:
    model = model_from_text(
        """g (float[1,4,6,6] x) => (float[1,8,6,6] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, w2) d = Add(c, b) y = Relu(d)
        }""",
        {"w1": (8, 4, 3, 3), "w2": (8, 8, 3, 3)},
    )
    assert kernels_of(prepare(model).model) == kernels_of(model)
