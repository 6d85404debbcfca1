"""The simulation of an engine in 16 bits rounds what a GPU's kernels round: compared with numpy, operator by operator."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from calibration.number_formats.precision import Precision
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.qdq.checks.simulation import simulated
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from tests.engine_builder.fake_quantized import run_node
from tests.engine_builder.qdq.networks import TEXTS, network
from tests.model_text import model_from_text

Floats = NDArray[np.float32]
HALVES = {Precision.FP16: (TensorProto.FLOAT16, np.dtype(np.float16)), Precision.BF16: (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16))}
WIDTH = 512
# Products with long sums, and sums whose large terms cancel, so that what is rounded between two operators shows in the outputs.
CHAIN = """chain (float[N,512] x) => (float[N,512] y) {
    h0 = Cast<to = KIND>(x)
    h1 = MatMul(h0, w0)
    h2 = Add(h1, h0)
    h3 = Mul(h2, hundred)
    h4 = Sub(h3, hundred)
    h5 = MatMul(h4, w1)
    h6 = Relu(h5)
    h7 = MatMul(h6, w2)
    h8 = Add(h7, bias)
    y = Cast<to = 1>(h8)
}"""


def chain(precision: Precision) -> onnx.ModelProto:
    kind, dtype = HALVES[precision]
    model = model_from_text(CHAIN.replace("KIND", str(int(kind))), opset=22, ir_version=10)
    for name, array in constants().items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), name))
    return model


def constants() -> dict[str, Floats]:
    rng = np.random.default_rng(0)
    weights = {f"w{index}": (rng.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32) for index in range(3)}
    return {**weights, "hundred": np.array(100, dtype=np.float32), "bias": rng.normal(size=WIDTH).astype(np.float32)}


def chain_in_numpy(x: Floats, precision: Precision) -> Floats:
    """Return what the kernels of a GPU give: sums in float32, every result rounded once, the bias in the product's kernel."""

    def half(array: NDArray[np.generic]) -> Floats:
        return precision.grid.round_weight(np.asarray(array, dtype=np.float32))

    given = {name: half(array) for name, array in constants().items()}
    h0 = half(x)
    h3 = half(half(half(h0 @ given["w0"]) + h0) * given["hundred"])
    h5 = half(half(h3 - given["hundred"]) @ given["w1"])
    return half(np.maximum(h5, 0) @ given["w2"] + given["bias"])


def as_written(model: onnx.ModelProto, feeds: dict[str, NDArray[np.generic]], folder: Path) -> tuple[NDArray[np.generic], ...]:
    onnx.save_model(model, folder / "explicit.onnx")
    return OrtCpuRunner(folder / "explicit.onnx", threads=1, as_written=True).run(feeds)


def error(found: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    exact = np.asarray(expected, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(found, dtype=np.float64) - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("precision", HALVES)
def test_every_operator_of_a_chain_rounds_what_it_writes(precision: Precision, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)
    (found,) = as_written(chain(precision), {"x": x}, tmp_path)
    expected, exact = chain_in_numpy(x, precision), chain_in_numpy(x, Precision.FP32)
    # A sum in another order turns a value between two halves either way, here and there.
    assert error(found, expected) < 0.1 * error(expected, exact)


def test_plain_onnxruntime_drops_the_roundings_between_operators(tmp_path: Path) -> None:
    """The reason for the simulation; should this fail one day, the simulation may go."""
    x = np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)
    onnx.save_model(chain(Precision.FP16), tmp_path / "explicit.onnx")
    (found,) = OrtCpuRunner(tmp_path / "explicit.onnx", threads=1).run({"x": x})
    expected, exact = chain_in_numpy(x, Precision.FP16), chain_in_numpy(x, Precision.FP32)
    assert error(found, exact) < 0.8 * error(expected, exact)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("kind", sorted(TEXTS))
def test_a_network_in_16_bits_is_computed_node_by_node_as_numpy_rounds_it(kind: str, precision: Precision, tmp_path: Path) -> None:
    found = network(TEXTS[kind])
    explicit = rewrite_tensorrt(found.model, found.layers, {}, found.ranges, baseline=precision)
    tensors: dict[str, NDArray[np.generic]] = {tensor.name: widened(tensor) for tensor in explicit.graph.initializer}
    tensors.update(found.feeds)
    plain = as_written(found.model, dict(found.feeds), tmp_path)
    outputs = as_written(explicit, dict(found.feeds), tmp_path)
    types = {value.name: value.type.tensor_type.elem_type for value in onnx.shape_inference.infer_shapes(explicit).graph.value_info}
    rounding = {kind: precision for precision, (kind, _) in HALVES.items()}
    for node in explicit.graph.node:
        for name, array in zip(node.output, computed(node, tensors), strict=False):
            halved = rounding.get(types.get(name, 0))
            tensors[name] = halved.grid.round_weight(np.asarray(array, dtype=np.float32)) if halved is not None else array
    expected = [tensors[value.name] for value in explicit.graph.output]
    for got, wanted, exact in zip(outputs, expected, plain, strict=True):
        assert got.dtype == exact.dtype
        rounded = np.asarray(wanted, dtype=np.float64)
        moved = np.linalg.norm(rounded - np.asarray(exact, dtype=np.float64))
        # As above; a MatMul and its bias round twice here and once there, and networks are small, so one value that turns weighs more.
        assert np.linalg.norm(np.asarray(got, dtype=np.float64) - rounded) <= 0.7 * moved


def computed(node: onnx.NodeProto, tensors: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    """Return a node's outputs in float32."""
    if node.op_type == "Cast" and int(node.attribute[0].i) in (TensorProto.FLOAT, *(kind for kind, _ in HALVES.values())):
        return [np.asarray(tensors[node.input[0]], dtype=np.float32)]
    return list(run_node(node, {name: tensors[name] for name in node.input if name}))


def widened(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    array = np.asarray(numpy_helper.to_array(tensor))
    return array.astype(np.float32) if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) else array


def test_a_model_without_16_bits_is_left_as_it_is() -> None:
    model = network(TEXTS["blocks"]).model
    assert simulated(model) is model


def test_what_does_not_fit_fp16_becomes_infinite(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float16[N] x) => (float16[N] y) { s = Add(x, big)  y = Sub(s, big) }""")
    model.graph.initializer.append(numpy_helper.from_array(np.array(60000, dtype=np.float16), "big"))
    (found,) = as_written(model, {"x": np.array([1.0, 10000.0], dtype=np.float16)}, tmp_path)
    assert found.dtype == np.float16
    assert np.array_equal(np.isfinite(found), [True, False])
    assert found[0] == 0.0  # 60001 is not on the grid


def test_names_that_are_taken_are_not_given_again(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float16[N] x) => (float16[N] y, float16[N] y_float32) { y_exact = Add(x, x)  y = Mul(y_exact, x)  y_float32 = Neg(y) }""")
    found = as_written(model, {"x": np.array([3.0], dtype=np.float16)}, tmp_path)
    assert [array.item() for array in found] == [18.0, -18.0]


def test_dequantized_levels_of_8_bits_are_not_rounded_and_those_of_4_bits_are(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
        g (int8[N] x) => (float[N] y)
        { q = Cast<to = TO>(x)  h = DequantizeLinear(q, scale)  y = Cast<to = 1>(h) }"""
    exact = np.float32(7) * np.float32(np.float16(0.3333))
    for stored, expected in ((TensorProto.INT8, exact), (TensorProto.INT4, np.float32(np.float16(exact)))):
        model = onnx.parser.parse_model(text.replace("TO", str(int(stored))))
        model.graph.initializer.append(numpy_helper.from_array(np.array(0.3333, dtype=np.float16), "scale"))
        (found,) = as_written(model, {"x": np.array([7], dtype=np.int8)}, tmp_path)
        assert found.item() == expected


def test_a_new_tensor_is_not_called_like_an_input_that_nothing_reads(tmp_path: Path) -> None:
    text = "g (float16[N,2] x, float[N,2] x_float32) => (float16[N,2] y) { y = Relu(x) }"
    onnx.save_model(model_from_text(text, {}), tmp_path / "plan.onnx")
    x = np.array([[-1.0, 2.0]], np.float16)
    runner = OrtCpuRunner(tmp_path / "plan.onnx", threads=1, as_written=True)
    np.testing.assert_array_equal(runner.run({"x": x, "x_float32": np.ones((1, 2), np.float32)})[0], [[0.0, 2.0]])
