"""Activations and normalizations that are written out, behind a dequantized tensor: one kernel each, as in the float model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision
from engine_builder.qdq.guards.fused_kernels import KeepFusedKernels
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import measured_ranges, model_of, run, samples_of, session_of

ERF = "d = Div(c, root)\n e = Erf(d)\n p = Add(e, one)"
CUBE = "c3 = Pow(c, three)\n t1 = Mul(c3, little)\n t2 = Add(c, t1)\n t3 = Mul(t2, scale)\n e = Tanh(t3)\n p = Add(e, one)"
SQUARE = (
    "c2 = Mul(c, c)\n t0 = Mul(c2, little)\n t1 = Add(one, t0)\n t2 = Mul(c, t1)\n t3 = Mul(scale, t2)\n e = Tanh(t3)\n p = Add(one, e)"
)
FORMS = {
    "half behind": ("Gelu", f"{ERF}\n m = Mul(c, p)\n a = Mul(m, half)"),
    "half between": ("Gelu", f"{ERF}\n m = Mul(p, half)\n a = Mul(m, c)"),
    "half before": ("Gelu", f"{ERF}\n m = Mul(half, c)\n a = Mul(m, p)"),
    "divided by two": ("Gelu", f"{ERF}\n m = Mul(p, c)\n a = Div(m, two)"),
    "times a root": ("Gelu", "d = Mul(inverse, c)\n e = Erf(d)\n p = Add(one, e)\n m = Mul(c, p)\n a = Mul(half, m)"),
    "cube": ("FastGelu", f"{CUBE}\n m = Mul(half, c)\n a = Mul(m, p)"),
    "square": ("FastGelu", f"{SQUARE}\n m = Mul(c, p)\n a = Mul(m, half)"),
    "sigmoid": ("QuickGelu", "e = Sigmoid(c)\n a = Mul(c, e)"),
    "steep sigmoid": ("QuickGelu", "d = Mul(c, steep)\n e = Sigmoid(d)\n a = Mul(e, c)"),
}
CONSTANTS = {
    "root": 1.41421,
    "inverse": 0.70710677,
    "one": 1.0,
    "half": 0.5,
    "two": 2.0,
    "three": 3.0,
    "little": 0.044715,
    "scale": 0.7978846,
    "steep": 1.702,
}
NORMALIZED = """m = ReduceMean<axes = [-1]>(r)
      d = Sub(r, m)
      q = {square}
      k = ReduceMean<axes = [-1]>(q)
      s = Add(k, small)
      u = Sqrt(s)
      {inverse}n = {quotient}
      g = Mul(n, gain)
      a = Add(g, offset)"""


def convolutions(between: str) -> onnx.ModelProto:
    """Return two convolutions with nodes between them that read c and make a."""
    constants = ", ".join(f"float {name} = {{{value}}}" for name, value in CONSTANTS.items() if name in between)
    rng = np.random.default_rng(3)
    model = model_of(f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) <float[4, 3, 1, 1] w, float[4, 4, 1, 1] v{", " if constants else ""}{constants}> {{
      [first] c = Conv(x, w)
      {between}
      [second] y = Conv(a, v)
    }}""")
    for tensor in model.graph.initializer:
        if tensor.name in ("w", "v"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(rng.normal(0, 1, tuple(tensor.dims)).astype(np.float32), tensor.name))
    return model


def normalized(*, square: str = "Pow(d, two)", quotient: str = "Div(d, u)") -> onnx.ModelProto:
    """Return a Gemm, a sum and a layer normalization of it that is written out."""
    rng = np.random.default_rng(4)
    model = model_of(f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 8] x) => (float[N, 4] y)
    <float[8, 8] w, float[8, 4] v, float two = {{2}}, float small = {{0.00001}}, float[8] gain, float[8] offset> {{
      [first] c = Gemm(x, w)
      [sum] r = Add(c, x)
      {NORMALIZED.format(square=square, quotient=quotient, inverse="i = Reciprocal(u)" + chr(10) if "i" in quotient.split("(")[1] else "")}
      [second] y = MatMul(a, v)
    }}""")
    for tensor in model.graph.initializer:
        if tensor.dims:
            tensor.CopyFrom(onnx.numpy_helper.from_array(rng.normal(0, 1, tuple(tensor.dims)).astype(np.float32), tensor.name))
    return model


def explicit(model: onnx.ModelProto, quantized: tuple[str, ...] | None = None) -> onnx.ModelProto:
    layers = find_layers(model)
    names = quantized if quantized is not None else [layer.name for layer in layers]
    return rewrite(
        model, layers, dict.fromkeys(names, Precision.INT8), measured_ranges(model, samples_of(model, 4)), ONNXRUNTIME_CPU_SCHEME
    )


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def optimized(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    session_of(model, optimized=True, dump=folder / "optimized.onnx")
    return operators(onnx.load(folder / "optimized.onnx"))


def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeepFusedKernels, "call", lambda _self, unchanged: ir.passes.PassResult(unchanged, modified=False))


@pytest.mark.parametrize(("operator", "form"), FORMS.values(), ids=list(FORMS))
def test_an_activation_of_a_dequantized_tensor_is_one_kernel(operator: str, form: str, tmp_path: Path) -> None:
    found = optimized(explicit(convolutions(form)), tmp_path)
    assert found[operator] == 1
    assert not found.keys() & {"Erf", "Tanh", "Sigmoid", "Mul", "Div", "Pow", "Add"}
    assert found["DequantizeLinear"] == 2  # of what the activation reads, and of the model's output


@pytest.mark.parametrize("model", [*(convolutions(form) for _, form in FORMS.values()), normalized()], ids=[*FORMS, "normalization"])
def test_no_value_changes(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = samples_of(model, 4)
    found = run(explicit(model), feeds, optimized=False)["y"]
    unfused(monkeypatch)
    expected = run(explicit(model), feeds, optimized=False)["y"]
    assert np.mean(np.isclose(found, expected, rtol=1e-5, atol=1e-6)) > 0.95  # a last bit may round to the next level
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("square", ["Pow(d, two)", "Mul(d, d)"])
@pytest.mark.parametrize("quotient", ["Div(d, u)", "Mul(d, i)", "Mul(i, d)"])
def test_a_normalization_of_a_dequantized_sum_is_one_kernel(square: str, quotient: str, tmp_path: Path) -> None:
    found = optimized(explicit(normalized(square=square, quotient=quotient)), tmp_path)
    assert found["LayerNormalization"] == 1
    assert not found.keys() & {"ReduceMean", "Sub", "Pow", "Sqrt", "Div", "Reciprocal"}


def test_a_tensor_that_is_moved_in_between_is_seen_through(tmp_path: Path) -> None:
    model = convolutions(f"k = Transpose<perm = [0, 1, 3, 2]>(c)\n {ERF}\n m = Mul(k, p)\n a = Mul(m, half)".replace("Div(c", "Div(k"))
    assert optimized(explicit(model), tmp_path)["Gelu"] == 1


def test_an_activation_that_is_an_output_keeps_its_name() -> None:
    model = convolutions(FORMS["sigmoid"][1])
    model.graph.output.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ("N", 4, 5, 5)))
    feeds = samples_of(model, 4)
    fused = explicit(model)
    assert operators(fused)["QuickGelu"] == 1
    np.testing.assert_allclose(run(fused, feeds, optimized=True)["a"], run(model, feeds, optimized=False)["a"], atol=0.1)


KEPT = {
    "inner values are outputs": f"{ERF}\n m = Mul(c, p)\n a = Mul(m, half)",
    "another function": "e = Sigmoid(c)\n m = Mul(c, e)\n a = Mul(m, e)",
    "gated by another tensor": "z = Relu(c)\n e = Sigmoid(z)\n a = Mul(c, e)",
    "wrong root": "d = Div(c, three)\n e = Erf(d)\n p = Add(e, one)\n m = Mul(c, p)\n a = Mul(m, half)",
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_none_of_them_stays(name: str) -> None:
    model = convolutions(KEPT[name])
    if name.startswith("inner"):
        model.graph.output.append(onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, ("N", 4, 5, 5)))
    assert not operators(explicit(model)).keys() & {"Gelu", "FastGelu", "QuickGelu"}


def test_float_tensors_are_left_to_the_runtime() -> None:
    model = convolutions(FORMS["half behind"][1])
    assert "Gelu" not in operators(explicit(model, quantized=("second",)))


def test_normalizations_over_other_axes_stay() -> None:
    model = normalized()
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            node.attribute[0].ints[:] = [0]
    assert "LayerNormalization" not in operators(explicit(model))


def test_other_targets_know_none_of_these_operators() -> None:
    model = convolutions(FORMS["half behind"][1])
    ranges = measured_ranges(model, samples_of(model, 4))
    written = rewrite(model, find_layers(model), dict.fromkeys(("first", "second"), Precision.INT8), ranges, TENSORRT_SCHEME)
    assert "Gelu" not in operators(written)
