from __future__ import annotations

import numpy as np
import pytest

from calibration.graph_passes.folding.steps import kept_axis
from tests.calibration.graph_passes.folding.small_models import images, operators_after, sequences

_NORM = "BatchNormalization({}, gamma, beta, mean, variance)"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("l = Conv(x, w) k = Relu(l) y = Mul(k, c)", ["Conv", "Relu"]),
        (
            "l = Conv(x, w) k = LeakyRelu<alpha=0.1>(l) j = MaxPool<kernel_shape=[2,2], pads=[1,1,0,0]>(k) y = Div(j, c)",
            ["Conv", "LeakyRelu", "MaxPool"],
        ),
        (
            "l = Mul(x, c) k = PRelu(l, d) j = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(k) y = Conv<pads=[1,1,1,1]>(j, w)",
            ["PRelu", "AveragePool", "Conv"],
        ),
        ("l = Mul(x, c) k = Transpose<perm=[0,2,3,1]>(l) y = MatMul(k, m)", ["Transpose", "MatMul"]),
        ("l = Conv(x, w) k = Transpose<perm=[0,2,3,1]>(l) y = Add(k, b)", ["Conv", "Transpose"]),
        ("l = Conv(x, w) r = Conv(x, w) k = Concat<axis=1>(l, r) y = Mul(k, e)", ["Conv", "Conv", "Concat"]),
        ("l = Conv(x, w) r = Conv(x, w) k = Concat<axis=-1>(l, r) y = Add(k, c)", ["Conv", "Conv", "Concat"]),
        ("l = Mul(x, c) k = Concat<axis=1>(x, l) y = Conv(k, w8)", ["Concat", "Conv"]),
        ("l = Add(x, c) k = Concat<axis=1>(x, l) y = Conv(k, w8)", ["Concat", "Conv"]),
        ("l = Mul(x, c) k = Add(l, d) y = Conv<pads=[1,1,1,1]>(k, w)", ["Add", "Conv"]),
        ("l = Mul(x, c) k = Sub(l, d) y = Conv<pads=[1,1,1,1]>(k, w)", ["Sub", "Conv"]),
        ("l = Conv(x, w) k = Relu(l) j = Add(k, c) y = Mul(j, d)", ["Conv", "Relu", "Add"]),
        ("l = Conv(x, w) k = Relu(l) j = Sub(k, c) y = Mul(j, d)", ["Conv", "Relu", "Sub"]),
        (f"l = Conv(x, w) k = MaxPool<kernel_shape=[2,2]>(l) y = {_NORM.format('k')}", ["Conv", "MaxPool"]),
        (f"l = Conv(x, w) k = GlobalAveragePool(l) y = {_NORM.format('k')}", ["Conv", "GlobalAveragePool"]),
        ("l = Conv(x, w) k = GlobalMaxPool(l) f1 = Flatten(k) y = Mul(f1, f)", ["Conv", "GlobalMaxPool", "Flatten"]),
        ("l = Mul(x, c) k = GlobalAveragePool(l) g1 = Flatten(k) y = Gemm(g1, m, b)", ["GlobalAveragePool", "Flatten", "Gemm"]),
    ],
)
def test_what_passes_a_step_is_folded_on_its_other_side(body: str, left: list[str]) -> None:
    outputs = "float[A,B] y" if "Flatten" in body else "float[A,B,C,D] y"
    assert operators_after(images(body, outputs)) == left


@pytest.mark.parametrize(
    "body",
    [
        "l = Conv(x, w) k = Relu(l) y = Mul(k, minus)",
        "l = Conv(x, w) k = MaxPool<kernel_shape=[2,2]>(l) y = Mul(k, minus)",
        "l = Conv(x, w) k = MaxPool<kernel_shape=[2,2]>(l) y = Mul(k, zero)",
        "l = Conv(x, w) k = Relu(l) y = Add(k, c)",
        f"l = Conv(x, w) k = LeakyRelu(l) y = {_NORM.format('k')}",
        "l = Mul(x, minus) k = Relu(l) y = Conv(k, w)",
        "l = Conv(x, w) k = AveragePool<kernel_shape=[2,2], pads=[1,1,0,0], count_include_pad=1>(l) y = Add(k, c)",
        "l = Conv(x, w) k = Sigmoid(l) y = Mul(k, c)",
        "l = Conv(x, w) k = Clip(l, zero, two) y = Mul(k, c)",
        "l = Conv(x, w) k = HardSwish(l) y = Mul(k, c)",
        "l = Conv(x, w) k = AveragePool<kernel_shape=[1,3]>(l) y = Mul(k, rows)",  # numbers of an axis that the pool mixes
        "l = Conv(x, w) t = Transpose<perm=[0,2,1,3]>(l) k = AveragePool<kernel_shape=[3,1], pads=[1,0,1,0]>(t) y = Mul(k, channels)",
        "l = Conv(x, w) k = Relu(l) j = Add(k, places) y = Mul(j, c)",  # the sum of a smaller constant by a larger one
        "l = Conv(x, w) k = Concat<axis=1>(l, x) y = Mul(k, e)",  # no layer makes the other part
        "l = Mul(x, zero) k = Add(l, c) y = Conv<pads=[1,1,1,1]>(k, w)",
    ],
)
def test_what_does_not_pass_a_step_stays(body: str) -> None:
    model = images(body, rows=np.arange(1.0, 7.0).reshape(6, 1), channels=np.arange(1.0, 5.0).reshape(4, 1), places=np.arange(6.0))
    if "Concat" in body:
        model.graph.node[0].attribute.extend(images("y = Conv<pads=[1,1,1,1]>(x, w)").graph.node[0].attribute)
    assert operators_after(model) == [node.op_type for node in model.graph.node]


def test_a_transpose_of_sequences_keeps_track_of_the_channels() -> None:
    body = "l = MatMul(x, m) t = Transpose<perm=[0,2,1]>(l) y = Mul(t, rows)"
    assert operators_after(sequences(body, rows=[[1.0], [2.0], [0.5], [3.0]])) == ["MatMul", "Transpose"]
    assert operators_after(sequences(body.replace("rows", "f"))) == ["MatMul", "Transpose", "Mul"]


@pytest.mark.parametrize(
    ("start", "goal", "axis", "kept"),
    [
        (["N", 4, 8, 8], ["N", 4, 64], -3, -2),
        ([2, 4, 8, 8], [2, 4, 64], -3, -2),
        ([2, 4, 8, 8], [2, 4, 8, 8, 1], -3, -4),
        ([2, 4, 1, 1], [2, 4], -3, -1),
        ([2, 4, 64], [2, 4, 8, 8], -2, -3),
        ([2, 4, 64], [2, 8, 32], -2, None),
        ([2, 4, 4], [2, 16], -1, None),
        ([2, 4, 4], [8, 4], -1, -1),
        ([2, 4, 4], [8, 4], -2, None),
        (["N", 4, "H"], ["N", 4, "H", 1], -2, None),  # names of dimensions are compared by onnx_ir's own kind
        ([2, 4, None], [2, 4, None, 1], -2, -3),
        ([None, 4, None], [None, 4, None, 1], -2, None),
        ([2, 1, 4], [2, 4], -2, None),
    ],
)
def test_the_axis_that_a_reshape_keeps(start: list[object], goal: list[object], axis: int, kept: int | None) -> None:
    assert kept_axis(start, goal, axis) == kept
