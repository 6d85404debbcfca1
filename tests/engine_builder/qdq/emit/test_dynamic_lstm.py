"""LSTMs whose input and hidden state are rounded at run time: what the engine computes, what probes simulate, and which forms it takes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.number_formats.recurrent_weights import integer_gates
from calibration.sensitivity.perturbed_model import ReferenceModel
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import Tensors, measured_ranges, model_of, run
from tests.model_text import Array
from tests.this_processor import EXACT_ANYWHERE, EXACT_HERE

HIDDEN, STEPS = 24, 9


def network(attributes: str = "", inputs: str = "", *, directions: int = 1, more: str = "") -> onnx.ModelProto:
    """Return an LSTM with the inputs behind its bias, and a classifier of each step."""
    d, h = directions, HIDDEN
    return model_of(f"""
<ir_version: 8, opset_import: ["" : 17]>
net (float[{STEPS},N,16] x) => (float[{STEPS},N,{d},5] y, float[{d},N,{h}] hn)
<float[{d},{4 * h},16] w, float[{d},{4 * h},{h}] r, float[{d},{8 * h}] b, float[{h},5] v{more}>
{{
    [cell] all, hn, cn = LSTM <hidden_size = {h}{attributes}> (x, w, r, b{inputs})
    [turn] turned = Transpose <perm = [0, 2, 1, 3]> (all)
    [head] y = MatMul(turned, v)
}}
""")


FORMS = {
    "forward": network(),
    "both ways": network(', direction = "bidirectional"', directions=2),
    "backwards": network(', direction = "reverse"'),
    "with lengths": network(inputs=", lengths", more=", int32[2] lengths = {4, 9}"),
    "with states": network(inputs=", , h0, c0", more=f", float[1,2,{HIDDEN}] h0, float[1,2,{HIDDEN}] c0"),
    "with peepholes": network(inputs=", , , , p", more=f", float[1,{3 * HIDDEN}] p"),
    "clipped": network(", clip = 0.5"),
    "with other activations": network(', activations = ["HardSigmoid", "Softsign", "Tanh"]'),
    "coupled": network(", input_forget = 1"),
}


def engine_of(model: onnx.ModelProto) -> onnx.ModelProto:
    layers = find_layers(model)
    return rewrite(model, layers, {"cell": Precision.INT8_DYNAMIC}, measured_ranges(model, feeds_of(model)), EXACT_HERE)


def feeds_of(model: onnx.ModelProto) -> Tensors:
    rng = np.random.default_rng(3)
    return {"x": rng.normal(size=(STEPS, 2, 16)).astype(np.float32)}


@pytest.mark.parametrize("name", FORMS)
def test_the_engine_computes_what_a_probe_simulates_and_is_near_the_float_model(name: str) -> None:
    model = FORMS[name]
    layers, feeds = find_layers(model), feeds_of(model)
    reference = ReferenceModel(model, layers, measured_ranges(model, feeds), EXACT_HERE)
    (probe,) = [one for one in reference.begin(feeds).probes() if one.layer.name == "cell"]
    simulated = np.asarray(probe.outputs_from(probe.quantized_output(Precision.INT8_DYNAMIC))[0], dtype=np.float32)
    engine, plain = run(engine_of(model), feeds, optimized=True), run(model, feeds, optimized=True)
    np.testing.assert_allclose(engine["y"].reshape(simulated.shape), simulated, rtol=1e-5, atol=1e-6)
    for output in ("y", "hn"):
        error = np.linalg.norm(engine[output] - plain[output]) / np.linalg.norm(plain[output])
        assert 1e-4 < error < 0.06  # 8 bits leave about a percent, and steps add theirs up


def test_the_input_is_rounded_with_the_range_of_the_call_and_the_hidden_state_with_that_of_a_step() -> None:
    model = FORMS["forward"]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (layer,) = [one for one in find_layers(model) if one.name == "cell"]
    w, r = (integer_gates(weights[name], layer, Precision.INT8_DYNAMIC, EXACT_HERE) for name in ("w", "r"))
    x = feeds_of(model)["x"]
    bias = weights["b"][0, : 4 * HIDDEN] + weights["b"][0, 4 * HIDDEN :]
    seen = rounded(x) @ (w.levels[0] * w.scale) + bias
    h = c = np.zeros((2, HIDDEN))
    for step in seen:
        i, o, f, new = np.split(step + rounded(h) @ (r.levels[0] * r.scale), 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
        h = sigmoid(o) * np.tanh(c)
    # A hidden value near the middle of two levels may be rounded to the other: float32 and float64 differ in the last bits.
    np.testing.assert_allclose(run(engine_of(model), {"x": x}, optimized=True)["hn"][0], h, atol=2e-3)


def rounded(x: Array) -> Array:
    """Return x on the grid of unsigned 8 bits that holds its values and 0."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255 or 1.0
    zero = np.round(-low / scale)
    return np.asarray((np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale)


def sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def test_the_engine_says_which_operators_it_needs_and_keeps_names_and_no_float_weights() -> None:
    engine = engine_of(FORMS["with states"])
    assert {(item.domain, item.version) for item in engine.opset_import} == {("", 17), ("com.microsoft", 1)}
    (cell,) = [node for node in engine.graph.node if node.op_type == "DynamicQuantizeLSTM"]
    assert (cell.name, cell.domain, list(cell.output)) == ("cell", "com.microsoft", ["all", "hn", "cn"])
    kinds = {tensor.name: tensor.data_type for tensor in engine.graph.initializer}
    assert {"w", "r"}.isdisjoint(kinds)
    assert [kinds[name] for name in cell.input[1:3]] == [onnx.TensorProto.INT8] * 2


def test_weights_keep_the_pair_bound_where_it_is_asked_for() -> None:
    model = FORMS["forward"]
    (layer,) = [one for one in find_layers(model) if one.name == "cell"]
    row = np.abs(numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == "w")))
    full, bound = (integer_gates(row, layer, Precision.INT8_DYNAMIC, scheme) for scheme in (ONNXRUNTIME_CPU_SCHEME, EXACT_ANYWHERE))
    pairs = bound.levels[0].astype(np.int64).reshape(8, 2, -1).sum(axis=1)
    assert (full.keeps_pair_bound, bound.keeps_pair_bound) == (False, True)
    assert full.levels.max() == 127
    assert 120 < pairs.max() <= 128
