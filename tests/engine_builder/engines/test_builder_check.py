"""What the target's own builder does not take is found while the job is inspected, and said so that a user can act on it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from engine_builder.backends.base import Backend, RefusedNode
from engine_builder.backends.nvidia.parser import reason_in
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.engines.builder_check import prepare_for
from engine_builder.errors import UnsupportedModelError
from tests.model_text import ModelMaker, cnn, model_from_text, run, samples_for

pytest.importorskip("tensorrt_rtx", reason="needs the tensorrt-rtx builder (the extra rtx)")


def model(text: str, weights: dict[str, tuple[int, ...]] | None = None, opset: int = 18, **constants: object) -> onnx.ModelProto:
    """Return a model with small integer constants besides its weights, its nodes named as what they make."""
    made = model_from_text(text, weights or {"w": (4, 4), "v": (4, 4)}, opset=opset, ir_version=11 if opset > 20 else 8)
    for name, values in constants.items():
        array = values if isinstance(values, np.ndarray) else np.array(values, dtype=np.int64)
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in made.graph.node:
        node.name = node.output[0]
    return made


def sized() -> onnx.ModelProto:
    """More values than an engine is built for, of which the first says how many rows there are."""
    return model(
        """g (float[N,1,4] x, int64[65] n) => (float[N,M,4] y) {
            a = MatMul(x, w)
            rows = Gather<axis=0>(n, zero)
            batch = Shape<start=0, end=1>(x)
            sizes = Concat<axis=0>(batch, rows, four)
            y = Expand(a, sizes)
        }""",
        {"w": (4, 4)},
        zero=[0],
        four=[4],
    )


def while_loop() -> onnx.ModelProto:
    """A loop that ends by its condition, and gives out what each step made."""

    def value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    number, flag, real = TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["s", "wl"], ["m"], name="step"),
            helper.make_node("Tanh", ["m"], ["s_out"], name="tanh"),
            helper.make_node("Identity", ["s_out"], ["each"], name="each"),
            helper.make_node("Add", ["k", "one"], ["k_out"], name="count"),
            helper.make_node("Less", ["k_out", "steps"], ["c_out"], name="ends"),
        ],
        "body",
        [value("i", number), value("c", flag), value("k", number), value("s", real, "N", 4)],
        [value("c_out", flag), value("k_out", number), value("s_out", real, "N", 4), value("each", real, "N", 4)],
    )
    made = model("g (float[N,4] x) => (float[N,4] y) { a = MatMul(x, w) y = MatMul(a, v) }", {"w": (4, 4), "v": (4, 4), "wl": (4, 4)})
    first, last = made.graph.node
    loop = helper.make_node("Loop", ["", "go", "zero", "a"], ["k_end", "s_end", "all"], name="while_loop", body=body)
    last.input[0] = "s_end"
    del made.graph.node[:]
    made.graph.node.extend([first, loop, last])
    made.graph.output.append(value("all", real, "steps", "N", 4))
    for name, array in (("go", np.array(True)), ("zero", np.array(0)), ("one", np.array(1)), ("steps", np.array(3))):
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    return made


def determinant() -> onnx.ModelProto:
    return model("g (float[N,4,4] x) => (float[N,4,4] y) { a = MatMul(x, w) d = Det(a) u = Unsqueeze(d, axes) y = Mul(a, u) }", axes=[1, 2])


def selected_boxes() -> onnx.ModelProto:
    return model(
        """g (float[1,6,4] x, float[1,1,6] s) => (float[K,4] y, int64[K,3] i) {
            b = MatMul(x, w) i = NonMaxSuppression(b, s, most) r = Squeeze(b, first) k = Gather<axis = 1>(i, two) y = Gather(r, k) }""",
        most=[4],
        first=[0],
        two=np.array(2),
    )


def shifted() -> onnx.ModelProto:
    return model(
        """g (float[N,4] x) => (float[N,4] y) {
            a = MatMul(x, w) t = ArgMax<axis = 1>(a) u = Cast<to = 12>(t) b = BitShift<direction = "LEFT">(u, ones) f = Cast<to = 1>(b)
            y = Mul(a, f) }""",
        ones=np.array([1], dtype=np.uint32),
    )


def shifting_loop() -> onnx.ModelProto:
    """A counted loop, one of whose steps the builder does not know."""
    made = while_loop()
    loop = made.graph.node[1]
    loop.input[0], loop.name = "steps", "counted"
    body = loop.attribute[0].g
    body.node.insert(0, helper.make_node("BitwiseNot", ["one"], ["other"], name="flip"))
    body.node.insert(1, helper.make_node("Neg", ["other"], ["two"], name="back"))
    next(node for node in body.node if node.name == "count").input[1] = "two"
    return made


def sequenced() -> onnx.ModelProto:
    return model(
        """g (float[N,4] x) => (float[N,4] y) {
            a = MatMul(x, w) s = SplitToSequence<axis = 1>(a, two) j = ConcatFromSequence<axis = 1>(s) y = MatMul(j, v) }""",
        two=np.array(2),
    )


def short_integers() -> onnx.ModelProto:
    return model("g (int16[N,4] x) => (float[N,4] y) { f = Cast<to = 1>(x) y = MatMul(f, w) }")


def scattered() -> onnx.ModelProto:
    return model(
        """g (float[3,4] x) => (float[3,4] y) {
            a = MatMul(x, w) s = ScatterElements<axis = 1, reduction = "add">(a, at, x) y = MatMul(s, v) }""",
        at=np.zeros((3, 4), dtype=np.int64),
    )


def gridded() -> onnx.ModelProto:
    return model(
        """g (float[N,6] x) => (float[N,4,4,2] y) {
            a = MatMul(x, w) t = Reshape(a, rows) n = Shape<start = 0, end = 1>(x) s = Concat<axis = 0>(n, sizes) y = AffineGrid(t, s) }""",
        {"w": (6, 6)},
        opset=20,
        rows=[-1, 2, 3],
        sizes=[1, 4, 4],
    )


@pytest.mark.parametrize(
    ("make", "named", "advice"),
    [
        (while_loop, "node 'while_loop' (Loop): TensorRT cannot infer the shape of scan output", "trip count"),
        (determinant, "node 'd' (Det): it does not know this operator", "Replace the node"),
        (selected_boxes, "node 'i' (NonMaxSuppression): it has no kernel for it", "select boxes after the model"),
        (shifted, "node 'b' (BitShift): it reads the constant 'ones' of uint32, a type that it does not have", "int32"),
        (shifting_loop, "node 'flip' (BitwiseNot) inside 'counted' (Loop): it does not know this operator", "Replace the node"),
        (sequenced, "node 's' (SplitToSequence): it does not know this operator", "Replace the node"),
        (short_integers, "the model: 'x' is int16, a type that it does not have", "int32"),
        (gridded, "node 'y' (AffineGrid): it does not know this operator", "Replace the node"),
        (scattered, "node 's' (ScatterElements): Unsupported reduction type", "Replace the node"),
        (sized, "the model: the values of its input 'n', (65,), set sizes (a shape tensor)", "Compute the size of this tensor outside"),
    ],
)
def test_what_the_builder_does_not_take_is_named_with_a_way_out(make: ModelMaker, named: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        prepare_for(TensorRtRtxBackend("RTX 4090"), make(), tmp_path)
    assert f"target 'tensorrt-rtx': its builder does not take {named}" in caught.value.detail
    assert advice in caught.value.fix
    assert "use the target 'onnxruntime-cpu', which has it" in caught.value.fix
    assert not list(tmp_path.iterdir())
    assert prepare_for(OrtCpuBackend(), make(), tmp_path).model.graph.node


def cropped() -> onnx.ModelProto:
    return model(
        """g (float[N,4,6,6] x) => (float[N,4,4,4] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w) c = CenterCropPad <axes = [2, 3]> (a, size) y = Relu(c) }""",
        {"w": (4, 4, 3, 3)},
        size=[4, 4],
    )


def attending() -> onnx.ModelProto:
    return model(
        """g (float[N,6,8] x) => (float[N,6,8] y) {
            a = MatMul(x, w) t = Attention <q_num_heads = 2, kv_num_heads = 2> (a, a, a) y = MatMul(t, v) }""",
        {"w": (8, 8), "v": (8, 8)},
        opset=23,
    )


def normalized_in_groups() -> onnx.ModelProto:
    """GroupNormalization as opset 18 has it, with one scale a group: the standard gave it up, and still defines it by others."""
    return model(
        """g (float[N,4,6,6] x) => (float[N,4,6,6] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w) n = GroupNormalization <num_groups = 2> (a, scale, bias) y = Relu(n) }""",
        {"w": (4, 4, 3, 3)},
        scale=np.array([0.5, 2.0], dtype=np.float32),
        bias=np.array([0.1, -0.2], dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("make", "operator"), [(cropped, "CenterCropPad"), (attending, "Attention"), (normalized_in_groups, "GroupNormalization")]
)
def test_what_the_builder_lacks_is_expanded_where_onnx_defines_it_by_others(make: ModelMaker, operator: str, tmp_path: Path) -> None:
    prepared = prepare_for(TensorRtRtxBackend("RTX 4090"), make(), tmp_path)
    assert f"1 {operator} replaced by the operators that ONNX defines it by" in prepared.notes
    assert operator not in {node.op_type for node in prepared.model.graph.node}
    feeds = samples_for(make(), 3)
    np.testing.assert_allclose(run(prepared.model, feeds)[0], run(make(), feeds)[0], rtol=1e-5, atol=1e-6)  # float32 sums in another order
    assert operator in {node.op_type for node in prepare_for(OrtCpuBackend(), make(), tmp_path).model.graph.node}


def test_a_slice_that_names_no_axes_and_cuts_the_first_ones_is_taken(tmp_path: Path) -> None:
    made = model(
        "g (float[N,6,4] x) => (float[4,N,4] y) { a = MatMul(x, w) t = Transpose<perm = [1, 0, 2]>(a) y = Slice(t, one, five) }",
        one=[1],
        five=[5],
    )
    assert prepare_for(TensorRtRtxBackend("RTX 4090"), made, tmp_path).model.graph.node


def test_a_model_that_the_builder_takes_is_prepared_as_for_any_target(tmp_path: Path) -> None:
    prepared = prepare_for(TensorRtRtxBackend("RTX 4090"), cnn(), tmp_path)
    assert prepared.model == prepare(cnn()).model
    assert find_layers(prepared.model)


class Watching:
    """The target ``tensorrt-rtx``, which notes how many bytes on disk it is shown."""

    def __init__(self) -> None:
        self._inner = TensorRtRtxBackend("RTX 4090")
        self.capabilities = self._inner.capabilities
        self.bytes_on_disk: list[int] = []

    def refused(self, explicit: Path) -> tuple[RefusedNode, ...]:
        self.bytes_on_disk.append(sum(512 * path.stat().st_blocks for path in explicit.parent.iterdir()))
        return self._inner.refused(explicit)


def test_the_builder_is_shown_a_model_without_its_weights(tmp_path: Path) -> None:
    big = model(
        "g (float[N,512] x) => (float[N,256] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }", {"w": (512, 512), "v": (512, 256)}
    )
    backend = Watching()
    prepared = prepare_for(cast(Backend, backend), big, tmp_path)
    (shown,) = backend.bytes_on_disk
    assert shown < 64 * 1024  # the weights are 1.5 MB
    np.testing.assert_array_equal(
        numpy_helper.to_array(prepared.model.graph.initializer[0]), numpy_helper.to_array(big.graph.initializer[0])
    )


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Assertion failed: false: no trip limit was set.", "no trip limit was set."),
        ('Assertion failed: (antialias == 0) && "Antialiasing is not supported currently."', "Antialiasing is not supported currently."),
        ("Assertion failed: false", "it does not know this operator"),
        (
            'Assertion failed: creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
            "it does not know this operator",
        ),
        (
            "Invalid Node - t\nITensor::getDimensions: Error Code 4: API Usage Error (t: first input has type UInt8. In checkType at "
            "/_src/optimizer/common/nodeBase.cpp:456)\n[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35)",
            "(t: first input has type UInt8)",
        ),
        (
            'Assertion failed: (mode == "align_corners" || mode == "half_pixel") && "Only half_pixel " "and align_corners!"',
            "Only half_pixel and align_corners!",
        ),
        ('Assertion failed: mode == "none": ScatterND with reduction is not supported.', "ScatterND with reduction is not supported."),
        ("Assertion failed: status.is_success(): Found unsupported input type of BOOL", "Found unsupported input type of BOOL"),
        ("K exceeds the maximum (3840). In check at /_src/a/b.cpp:10 In analyze at /_src/a/b.cpp:25)", "K exceeds the maximum (3840))"),
    ],
)
def test_a_reason_is_what_the_parser_says_without_its_own_checks(said: str, reason: str) -> None:
    assert reason_in(said) == reason
