from __future__ import annotations

import onnx
import pytest
from numpy.typing import ArrayLike

from calibration.graph_passes.normalize import prepare
from tests.calibration.graph_passes.folding.small_models import images, operators_after, rows, sequences


@pytest.mark.parametrize(
    "body",
    [
        "l = Conv<pads=[1,1,1,1]>(x, w, b) y = Mul(l, c)",
        "l = Conv(x, w) y = Mul(d, l)",
        "l = Conv(x, w) k = Div(l, two) y = Add(k, c)",
        'l = Conv<auto_pad="SAME_LOWER">(x, w, b) k = Neg(l) y = Sub(c, k)',
        "l = ConvTranspose(x, w) k = BatchNormalization(l, gamma, beta, mean, variance) y = Sub(k, two)",
        "l = Conv(x, w) k = Mul(l, zero) y = Add(k, c)",
        "l = Mul(x, c) y = Conv<pads=[1,1,1,1]>(l, w)",
        "l = Mul(minus, x) y = Conv<pads=[1,1,1,1]>(l, w)",
        "l = Div(x, d) y = ConvTranspose<pads=[1,1,1,1], strides=[2,2]>(l, w)",
        "l = Add(x, c) y = Conv(l, w)",
        "l = Sub(two, x) y = Conv<strides=[2,2]>(l, w, b)",
        'l = BatchNormalization(x, gamma, beta, mean, variance) y = Conv<auto_pad="VALID">(l, w, b)',
        'l = Add(x, c) y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(l, p)',
        "same = Identity(c) l = Mul(x, same) k = Identity(l) y = Conv(k, w)",
        "scale = Constant<value = float[4, 1, 1] {1.0, 2.0, 3.0, 4.0}>() l = Conv(x, w) y = Mul(l, scale)",
    ],
)
def test_constants_around_a_convolution_become_parts_of_it(body: str) -> None:
    (operator,) = operators_after(images(body))
    assert operator in ("Conv", "ConvTranspose")


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("l = MatMul(x, m) y = Mul(l, f)", ["MatMul"]),
        ("l = MatMul(x, m) k = Add(l, b) y = Div(k, two)", ["MatMul", "Add"]),
        ("l = MatMul(x, m) k = Mul(l, f) j = Add(b, k) y = Mul(j, two)", ["MatMul", "Add"]),
        ("l = MatMul(x, m) k = Add(l, b) y = Sub(k, f)", ["MatMul", "Add"]),
        ("l = MatMul(x, m) y = Sub(two, l)", ["MatMul", "Add"]),
        ("l = Mul(x, f) y = MatMul(l, m)", ["MatMul"]),
        ("l = Mul(x, rows) y = MatMul(m, l)", ["MatMul"]),
        ("l = MatMul(m, x) y = Mul(l, rows)", ["MatMul"]),
        ("l = Div(x, two) y = MatMul(m, l)", ["MatMul"]),
    ],
)
def test_constants_around_a_product_become_parts_of_it_and_its_bias(body: str, left: list[str]) -> None:
    assert operators_after(sequences(body, rows=[[1.0], [2.0], [0.5], [3.0]])) == left


@pytest.mark.parametrize(
    "body",
    [
        "l = Gemm<alpha=0.5, beta=2.0>(x, m, b) k = Mul(l, f) y = Add(k, two)",
        "l = Gemm<transB=1>(x, m) k = BatchNormalization(l, gamma, beta, mean, variance) y = Neg(k)",
        "l = Add(x, b) k = Div(l, f) y = Gemm<transB=1>(k, m, b)",
        "l = Mul(x, f) t = Transpose(l) y = Gemm<transA=1>(t, m, b)",
    ],
)
def test_constants_around_a_gemm_become_parts_of_it(body: str) -> None:
    assert [one for one in operators_after(rows(body)) if one != "Transpose"] == ["Gemm"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("l = Add(x, c) y = Conv<pads=[1,1,1,1]>(l, w)", ["Add", "Conv"]),
        ('l = Add(x, c) y = Conv<auto_pad="SAME_UPPER">(l, w)', ["Add", "Conv"]),
        ("l = Sub(two, x) y = Conv<pads=[0,1,0,1]>(l, w)", ["Sub", "Conv"]),
        (
            "l = BatchNormalization(x, gamma, beta, mean, variance) y = Conv<pads=[1,1,1,1]>(l, w)",
            ["BatchNormalization", "Conv"],
        ),
        ("l = Add(x, c) y = ConvTranspose(l, w)", ["Add", "ConvTranspose"]),
    ],
)
def test_an_offset_before_padding_stays(body: str, left: list[str]) -> None:
    assert operators_after(images(body)) == left


@pytest.mark.parametrize(
    "body", ["l = Add(x, b) y = MatMul(l, m)", "l = BatchNormalization(x, gamma, beta, mean, variance) y = MatMul(l, m)"]
)
def test_an_offset_before_a_product_without_a_bias_stays(body: str) -> None:
    assert len(operators_after(rows(body))) == 2


@pytest.mark.parametrize("step", ["Mul(l, c)", "Add(l, c)", "BatchNormalization(l, gamma, beta, mean, variance)"])
def test_what_others_read_too_stays(step: str) -> None:
    left = step.split("(", maxsplit=1)[0]
    assert left in operators_after(images(f"l = Conv(x, w) k = {step} r = Sigmoid(l) y = Mul(r, k)"))
    assert left in operators_after(images(f"l = Conv(x, w) k = {step} y = Sigmoid(k)", "float[A,B,C,D] y, float[A,B,C,D] l"))
    before = step.replace("l,", "x,")
    assert left in operators_after(images(f"k = {before} l = Conv(k, w) y = Sigmoid(l)", "float[A,B,C,D] y, float[A,B,C,D] k"))
    assert left in operators_after(images(f"k = {before} l = Conv(k, w) r = Sigmoid(k) s = Conv(r, w) y = Add(l, s)"))


def test_what_a_subgraph_reads_too_stays() -> None:
    model = images(
        """l = Mul(x, c) k = Conv<pads=[1,1,1,1]>(l, w) size = Size(x) zero_size = Constant<value_int=0>()
        some = Greater(size, zero_size) y = If(some) <
            then_branch = one () => (float[A,B,C,D] t) { t = Identity(k) },
            else_branch = other () => (float[A,B,C,D] f1) { f1 = Conv<pads=[1,1,1,1]>(l, w) }
        >"""
    )
    assert "Mul" in operators_after(model)


def test_all_readers_take_a_factor_or_none() -> None:
    both = "l = Mul(x, c) k = Conv<pads=[1,1,1,1]>(l, w) j = Conv<pads=[1,1,1,1]>(l, w, b) y = Add(k, j)"
    assert operators_after(images(both)) == ["Conv", "Conv", "Add"]
    one = "l = Add(x, c) k = Conv<pads=[1,1,1,1]>(l, w) j = Conv(l, p, b) y = Add(k, j)"
    assert operators_after(images(one)) == ["Add", "Conv", "Conv", "Add"]


def test_a_weight_of_several_layers_changes_for_the_one_that_takes_a_factor() -> None:
    body = "k = Conv<pads=[1,1,1,1]>(x, w) l = Mul(k, c) r = Sigmoid(l) y = Conv<pads=[1,1,1,1]>(r, w)"
    assert operators_after(images(body)) == ["Conv", "Sigmoid", "Conv"]


def test_a_constant_of_several_steps_is_folded_for_each() -> None:
    body = "k = Conv(x, w) l = Mul(k, c) r = Sigmoid(l) j = Conv(r, w) i = Mul(j, c) y = Add(i, c)"
    assert operators_after(images(body)) == ["Conv", "Sigmoid", "Conv"]


@pytest.mark.parametrize(
    "body",
    [
        "l = Conv(x, w) k = Conv(x, w) r = Sigmoid(k) y = Mul(l, r)",  # two computed tensors
        "l = Conv(x, w) y = Mul(l, wide)",  # numbers of positions, not of channels
        "l = Conv(x, one) y = Mul(l, c)",  # the constant makes four channels of one
        "l = Conv(x, w) y = Div(two, l)",
        "l = Conv(x, w) y = Mul(l, huge)",  # no weight in FP16 could hold the product
        "l = Conv(x, w) y = Mul(l, tiny)",
        "l = Mul(x, tiny) y = Conv(l, w)",
        "l = Conv(x, w) y = Div(l, zero)",
        "l = Conv(x, w) y = Add(l, spatial)",
        "s = Sigmoid(x) r = ReduceMean<axes=[0], keepdims=1>(s) l = Conv(x, r) y = Mul(l, c)",  # a computed weight
    ],
)
def test_what_is_no_number_for_each_channel_stays(body: str) -> None:
    given: dict[str, ArrayLike] = {
        "wide": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        "one": [[[[1.0]]] * 4],
        "huge": 1e7,
        "tiny": 1e-7,
        "spatial": [[list(range(6))] * 6],
    }
    model = images(body, outputs="float[A,B,C,D] y", **given)
    before = [node.op_type for node in model.graph.node]
    prepared = prepare(model)
    assert [node.op_type for node in prepared.model.graph.node] == before
    assert prepared.folded == ()


def test_a_shape_that_is_not_known_keeps_what_depends_on_it() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[N,K] x, int64[2] shape) => (float[A,B] y)
        <float[1,4] f = {1.0, 2.0, 3.0, 4.0}, float[4,4] m = {1.0,2.0,3.0,4.0,1.0,2.0,3.0,4.0,1.0,2.0,3.0,4.0,1.0,2.0,3.0,4.0}> {
            r = Reshape(x, shape) l = Mul(r, f) y = MatMul(l, m)
        }"""
    )
    assert [node.op_type for node in prepare(model).model.graph.node] == ["Reshape", "Mul", "MatMul"]
