"""What is worth trying differs between TensorRT and TensorRT-RTX."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx
import pytest

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from engine_builder.backends.achieved_precision import achieved_precisions
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.config.config import ShapeRange
from engine_builder.qdq.rules.eligibility import Eligibility
from engine_builder.qdq.rules.target_placement import Placement
from engine_builder.qdq.tensorrt_dialect import rewrite_tensorrt
from tests.engine_builder.qdq.networks import FLOATS, network
from tests.model_text import model_from_text

INT8, FP8, INT4 = Precision.INT8, Precision.FP8, Precision.INT4
# The parts of a mobile network: an expansion, a depthwise convolution, a squeeze-and-excitation block, a stem, a wide filter, a classifier.
MOBILE = """g (float[N,3,16,16] x) => (float[N,1,64] y) {
    stem = Conv<pads=[1,1,1,1]>(x, w_stem)
    expand = Conv(stem, w_expand)
    deep = Conv<group=32, pads=[1,1,1,1]>(expand, w_deep)
    squeezed = GlobalAveragePool(deep)
    reduce = Conv(squeezed, w_reduce)
    raise = Conv(reduce, w_raise)
    gate = Sigmoid(raise)
    gated = Mul(deep, gate)
    wide = Conv<pads=[3,3,3,3]>(gated, w_wide)
    pooled = GlobalAveragePool(wide)
    rows = Reshape(pooled, shape)
    y = MatMul(rows, w_last)
}"""
WEIGHTS = {
    "w_stem": (32, 3, 3, 3),
    "w_expand": (32, 32, 1, 1),
    "w_deep": (32, 1, 3, 3),
    "w_reduce": (20, 32, 1, 1),
    "w_raise": (32, 20, 1, 1),
    "w_wide": (32, 32, 7, 7),
    "w_last": (32, 64),
}


def mobile() -> onnx.ModelProto:
    model = model_from_text(MOBILE.replace(" {\n", " <int64[3] shape = {-1, 1, 32}> {\n", 1), WEIGHTS)
    for node in model.graph.node:
        node.name = node.output[0]
    return prepare(model).model


def offered(model: onnx.ModelProto, placement: Placement | None) -> dict[str, set[Precision]]:
    layers = find_layers(model)
    eligibility = Eligibility(model, layers, placement)
    return {layer.name: {one for one in (INT8, FP8) if eligibility.can_take(layer, one)} for layer in layers}


def test_tensorrt_tries_thin_convolutions_in_int8_and_leaves_out_what_nvidias_quantizer_does() -> None:
    found = offered(mobile(), Placement.TENSORRT)
    assert found["deep"] == {INT8}  # one channel a group: too few for FP8
    assert found["stem"] == {INT8}
    assert found["expand"] == {INT8, FP8}
    assert found["reduce"] == found["raise"] == set()  # on maps of one element
    assert found["wide"] == {INT8}  # 49 elements of the filter


def test_tensorrt_rtx_leaves_out_what_it_would_pad_and_nothing_else() -> None:
    found = offered(mobile(), Placement.TENSORRT_RTX)
    assert found["deep"] == found["stem"] == set()
    assert found["expand"] == found["reduce"] == found["wide"] == {INT8, FP8}


def product(rows: str, columns: int = 48) -> onnx.ModelProto:
    model = model_from_text(f"g (float[{rows},32] x) => (float[{rows},{columns}] y) {{ y = MatMul(x, w) }}", {"w": (32, columns)})
    return prepare(model).model


@pytest.mark.parametrize(("rows", "columns", "is_tried"), [("N", 48, True), ("1", 48, False), ("4", 48, True), ("N", 1, False)])
def test_a_product_of_a_matrix_and_a_vector_is_left_out_where_the_graph_says_that_it_is_one(
    rows: str, columns: int, *, is_tried: bool
) -> None:
    ((_, found),) = offered(product(rows, columns), Placement.TENSORRT).items()
    assert found == ({INT8, FP8} if is_tried else set())


def test_weights_alone_may_be_narrow_in_a_product_with_a_vector() -> None:
    model = prepare(model_from_text("g (float[1,64] x) => (float[1,64] y) { y = MatMul(x, w) }", {"w": (64, 64)})).model
    layers = find_layers(model)
    assert Eligibility(model, layers, Placement.TENSORRT).can_take(layers[0], INT4)


def test_each_target_has_its_own_rules() -> None:
    model = mobile()
    layers = find_layers(model)
    deep = next(layer for layer in layers if layer.name == "deep")
    assert TensorRtBackend().capabilities.dialect.eligibility(model, layers).can_take(deep, INT8)
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        assert not TensorRtRtxBackend("L4").capabilities.dialect.eligibility(model, layers).can_take(deep, INT8)


def test_a_depthwise_convolution_in_int8_is_built_as_one(tmp_path: Path) -> None:
    """NVIDIA's builder multiplies it in INT8; whether that pays is for timing to say."""
    pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt-rtx builder (the extra rtx)")
    found = network(FLOATS)
    explicit = rewrite_tensorrt(found.model, found.layers, {"depthwise": INT8}, found.ranges)
    onnx.save_model(explicit, tmp_path / "explicit.onnx")
    backend = TensorRtRtxBackend("RTX 4090")
    backend.capabilities.dialect.check(explicit, compute_capability=(8, 9))
    engine = backend.build(
        tmp_path / "explicit.onnx", tmp_path / "engine.plan", shapes={"x": ShapeRange((1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8))}
    )
    (row,) = achieved_precisions(engine.kernels, {"depthwise": INT8})
    assert (row.got, row.reason) == (INT8, None)
