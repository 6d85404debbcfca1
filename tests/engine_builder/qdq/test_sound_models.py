"""Sound models with traits that TensorRT types in its own way: their FP16 plans build, and the simulation gives what the model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from calibration.onnx_model.model_io import input_specs, save_model
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.config.config import ShapeRange
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from tests.model_text import Array, model_from_text, run

pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt-rtx builder (the extra rtx)")

TIME, WIDTH = 7, 32
# name: (graph, opset, weights, other constants)
SOUND: dict[str, tuple[str, int, dict[str, tuple[int, ...]], dict[str, Array]]] = {
    "a normalization by groups of opset 21": (
        """g (float[N,8,6,6] x) => (float[N,8,6,6] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w) b = GroupNormalization <num_groups = 4> (a, scale, shift) c = Relu(b)
            y = Conv <pads = [1, 1, 1, 1]> (c, v) }""",
        21,
        {"w": (8, 8, 3, 3), "v": (8, 8, 3, 3), "scale": (8,), "shift": (8,)},
        {},
    ),
    "recurrent operators, one with lengths, and initial states made of sizes": (
        """g (float[N,7,32] x, int32[N] lengths) => (float[N,32] y) {
            m = MatMul(x, w) r = Relu(m) t = Transpose<perm = [1, 0, 2]>(r) s = Shape<start = 1, end = 2>(t)
            c = Concat<axis = 0>(one, s, width) h = ConstantOfShape(c) o = LSTM<hidden_size = 32>(t, wl, rl, , , h, h) q = Squeeze(o, one)
            p, e = GRU<hidden_size = 32>(q, wg, rg, , lengths) f = Squeeze(e, zero) y = MatMul(f, v) }""",
        17,
        {"w": (32, 32), "v": (32, 32), "wl": (1, 128, 32), "rl": (1, 128, 32), "wg": (1, 96, 32), "rg": (1, 96, 32)},
        {"one": np.array([1]), "zero": np.array([0]), "width": np.array([32])},
    ),
    "a bidirectional recurrent operator with lengths": (
        """g (float[N,7,32] x, int32[N] lengths) => (float[N,32] y) {
            m = MatMul(x, w) t = Transpose<perm = [1, 0, 2]>(m)
            o, h = RNN<hidden_size = 32, direction = "bidirectional">(t, wr, rr, , lengths)
            s = ReduceMean<axes = [0], keepdims = 0>(h) y = MatMul(s, v) }""",
        17,
        {"w": (32, 32), "v": (32, 32), "wr": (2, 32, 32), "rr": (2, 32, 32)},
        {},
    ),
    "positions from a Range of floats": (
        """g (float[N,T,32] x) => (float[N,32] y) {
            s = Shape<start = 1, end = 2>(x) f = Cast<to = 1>(s) t = Squeeze(f) r = Range(low, t, step) u = Unsqueeze(r, one)
            a = Mul(u, frequency) p = Sin(a) m = MatMul(x, w) z = Add(m, p)
            k = ReduceMean<axes = [1], keepdims = 0>(z) y = MatMul(k, v) }""",
        17,
        {"w": (32, 32), "v": (32, 32)},
        {
            **{"one": np.array([1]), "low": np.array(0, dtype=np.float32), "step": np.array(1, dtype=np.float32)},
            "frequency": np.linspace(0.01, 1, 32, dtype=np.float32),
        },
    ),
    "a size that is halved and rounded down in floats": (
        """g (float[N,4,6,6] x) => (float[N,4,A,B] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w) s = Shape(a) h = Slice(s, two, four) f = Cast<to = 1>(h) m = Mul(f, half) d = Floor(m)
            i = Cast<to = 7>(d) b = Slice(s, zero, two) c = Concat<axis = 0>(b, i) y = Resize<mode = "nearest">(a, , , c) }""",
        17,
        {"w": (4, 4, 3, 3)},
        {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4]), "half": np.array(0.5, dtype=np.float32)},
    ),
    "a picture of bytes that is moved and cut before it is cast": (
        """g (uint8[N,10,10,3] x) => (float[N,4,8,8] y) {
            t = Transpose<perm = [0, 3, 1, 2]>(x) c = Slice(t, first, last, axes) f = Cast<to = 1>(c) s = Mul(f, per)
            y = Conv <pads = [1, 1, 1, 1]> (s, w) }""",
        17,
        {"w": (4, 3, 3, 3)},
        {
            **{"first": np.array([1, 1]), "last": np.array([9, 9]), "axes": np.array([2, 3])},
            "per": np.array(1 / 255, dtype=np.float32),
        },
    ),
}


def model_called(name: str) -> onnx.ModelProto:
    text, opset, weights, constants = SOUND[name]
    model = model_from_text(text, weights, opset=opset, ir_version=10 if opset > 20 else 8)
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in constants.items())
    return model


def feeds_for(model: onnx.ModelProto, batch: int) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    feeds: dict[str, Array] = {}
    for spec in input_specs(model):
        shape = (batch, *(size if isinstance(size, int) else TIME for size in spec.shape[1:]))
        draw = {"float32": rng.normal(size=shape), "uint8": rng.integers(0, 256, shape), "int32": rng.integers(1, TIME + 1, shape)}
        feeds[spec.name] = draw[spec.dtype].astype(spec.dtype)
    return feeds


@pytest.mark.parametrize("name", SOUND)
def test_the_plan_builds_and_its_simulation_gives_what_the_model_gives(name: str, tmp_path: Path) -> None:
    model = model_called(name)
    prepared = prepare(model).model
    layers = find_layers(prepared)
    ranges = {tensor: (-4.0, 4.0) for layer in layers for tensor in (*layer.inputs, layer.output)}
    explicit = tmp_path / "explicit.onnx"
    save_model(rewrite_tensorrt(prepared, layers, {}, ranges, baseline=Precision.FP16), explicit)
    feeds = feeds_for(model, 3)
    sizes = {key: ShapeRange((1, *value.shape[1:]), value.shape, value.shape) for key, value in feeds.items()}
    engine = TensorRtRtxBackend("RTX 4090").build(explicit, tmp_path / "engine.plan", shapes=sizes)
    assert engine.size_bytes > 1000
    (found,) = OrtCpuRunner(explicit, threads=1, as_written=True).run(feeds)
    (expected,) = run(model, feeds)
    assert found.shape == expected.shape
    # FP16 rounds to 1 in 2048, a few times over; nothing that counts is rounded.
    assert float(np.linalg.norm(found - expected) / np.linalg.norm(expected)) < 2e-3
