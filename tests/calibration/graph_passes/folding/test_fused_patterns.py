from __future__ import annotations

import numpy as np
import onnx
import pytest

from calibration.graph_passes.normalize import prepare
from tests.calibration.graph_passes.folding.runtime_kernels import kernels_of
from tests.calibration.graph_passes.folding.small_models import images, operators_after, sequences

_GELUS = {
    "half behind": "d1 = Div(h, root) e1 = Erf(d1) p1 = Add(e1, one) q1 = Mul(h, p1) g = Mul(q1, half)",
    "half before": "d1 = Div(h, root) e1 = Erf(d1) p1 = Add(e1, one) a1 = Mul(h, half) g = Mul(a1, p1)",
    "half first": "d1 = Mul(h, inverse) e1 = Erf(d1) p1 = Add(one, e1) q1 = Mul(h, p1) g = Mul(half, q1)",
    "by tanh": """three = Pow(h, cube) s1 = Mul(three, small) s2 = Add(h, s1) s3 = Mul(s2, pi) t1 = Tanh(s3) p1 = Add(t1, one)
        q1 = Mul(h, half) g = Mul(q1, p1)""",
    "by tanh, half behind": """three = Pow(h, cube) s1 = Mul(three, small) s2 = Add(h, s1) s3 = Mul(s2, pi) t1 = Tanh(s3)
        p1 = Add(t1, one) q1 = Mul(h, p1) g = Mul(q1, half)""",
}
_NUMBERS = {
    **{"root": np.sqrt(2.0), "inverse": np.sqrt(0.5), "one": 1.0, "half": 0.5, "cube": 3.0, "small": 0.044715, "pi": np.sqrt(2 / np.pi)},
    **{"square": 2.0, "epsilon": 1e-5, "scale": 0.5},
}
_NORMS = {
    "layer": """a1 = ReduceMean<axes=[-1]>(x) s1 = Sub(x, a1) q1 = Pow(s1, square) v1 = ReduceMean<axes=[-1]>(q1) p1 = Add(v1, epsilon)
        r1 = Sqrt(p1) n1 = Div(s1, r1) g1 = Mul(n1, f) l1 = Add(g1, b) y = MatMul(l1, m)""",
    "root mean square": """q1 = Pow(x, square) v1 = ReduceMean<axes=[-1]>(q1) p1 = Add(v1, epsilon) r1 = Sqrt(p1) n1 = Div(x, r1)
        g1 = Mul(n1, f) y = MatMul(g1, m)""",
}


def fused(model: onnx.ModelProto) -> list[str]:
    """Return the operators of onnxruntime's own that it makes of a model."""
    return [kind for kind in kernels_of(model) if kind not in ("Add", "MatMul", "Gemm", "Mul", "Conv", "Transpose", "Reshape", "Softmax")]


@pytest.mark.parametrize("gelu", _GELUS)
def test_a_gelu_between_layers_stays_whole(gelu: str) -> None:
    model = sequences(f"l0 = MatMul(x, m) h = Add(l0, b) {_GELUS[gelu]} y = MatMul(g, v)", **_NUMBERS)
    assert operators_after(model) == [node.op_type for node in model.graph.node]
    assert fused(prepare(model).model) == fused(model) != []


def test_a_factor_behind_a_gelu_is_folded_into_the_next_layer() -> None:
    model = sequences(f"l0 = MatMul(x, m) h = Add(l0, b) {_GELUS['half before']} k = Mul(g, f) y = MatMul(k, v)", **_NUMBERS)
    assert len(operators_after(model)) == len(model.graph.node) - 1


def test_a_gelu_between_convolutions_stays_whole() -> None:
    model = images(f"h = Conv(x, w) {_GELUS['half behind']} y = Conv(g, w)", **_NUMBERS)
    assert operators_after(model) == [node.op_type for node in model.graph.node]
    assert fused(prepare(model).model) == fused(model) != []


@pytest.mark.parametrize("norm", _NORMS)
def test_a_normalization_written_out_stays_whole(norm: str) -> None:
    model = sequences(_NORMS[norm], **_NUMBERS)
    assert operators_after(model) == [node.op_type for node in model.graph.node]
    assert fused(prepare(model).model) == fused(model) != []


@pytest.mark.parametrize("moves", ["t1 = Transpose<perm=[0,2,1]>(s1)", "t1 = Identity(s1)"])
def test_the_scale_of_an_attention_stays_with_its_product(moves: str) -> None:
    model = sequences(f"q1 = MatMul(x, m) a1 = Add(q1, b) s1 = Mul(a1, scale) {moves} k1 = MatMul(x, v) y = MatMul(t1, k1)", **_NUMBERS)
    assert "Mul" in operators_after(model)
    assert kernels_of(prepare(model).model) == kernels_of(model)
    assert "FusedMatMul" in kernels_of(model)


def test_a_bias_before_a_gelu_stays_one_that_the_runtime_takes_in() -> None:
    model = sequences(f"l0 = MatMul(x, m) s0 = Mul(l0, f) h = Add(s0, b) {_GELUS['half behind']} y = MatMul(g, v)", **_NUMBERS)
    assert len(operators_after(model)) == len(model.graph.node) - 1
    assert "BiasGelu" in kernels_of(prepare(model).model)


def test_a_swish_between_layers_stays_whole() -> None:
    model = sequences("h = MatMul(x, m) s1 = Mul(h, scale) s2 = Sigmoid(s1) g = Mul(h, s2) y = MatMul(g, v)", **_NUMBERS)
    assert operators_after(model) == [node.op_type for node in model.graph.node]
    assert fused(prepare(model).model) == fused(model) == ["QuickGelu"]


def test_the_division_of_a_hard_swish_goes_into_the_next_layer() -> None:
    model = images(
        "h = Conv(x, w) p1 = Add(h, three) c1 = Clip(p1, zero, six) q1 = Mul(h, c1) g = Div(q1, six) y = Conv(g, w)", three=3.0, six=6.0
    )
    assert operators_after(model) == ["Conv", "Add", "Clip", "Mul", "Conv"]


def test_a_hard_swish_by_hard_sigmoid_stays_whole() -> None:
    model = images("h = Conv(x, w) s1 = HardSigmoid<alpha=0.16666667>(h) g = Mul(h, s1) y = Conv(g, w)")
    assert operators_after(model) == ["Conv", "HardSigmoid", "Mul", "Conv"]
    assert fused(prepare(model).model) == fused(model)
