"""Joined tensors in the explicit graph: the runtime joins integers where it can, and no value changes for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.graph.free_names import Names, names_in
from calibration.graph.layers import find_layers
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision, Scheme
from engine_builder.qdq.emit.joins import QuantizeJoins
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import measured_ranges, model_of, run, samples_of, session_of

UPSAMPLED = """<ir_version: 8, opset_import: ["" : 17]>
upsampled (float[N, 3, 8, 8] x) => (float[N, 4, M, K] y)
<float[4, 3, 3, 3] w1, float[4, 4, 3, 3] w2, float[4, 8, 3, 3] w3, float[4] scales = {1, 1, 2, 2}> {
  [first] a = Conv<pads=[1,1,1,1]>(x, w1)
  [second] b = Conv<pads=[1,1,1,1], strides=[2,2]>(a, w2)
  [up] u = Resize<mode = "MODE">(b, , scales)
  [join] j = Concat<axis=1>(u, JOINED)
  [last] y = Conv<pads=[1,1,1,1]>(j, w3)
  TAIL
}"""


def upsampled(joined: str = "a", tail: str = "", mode: str = "linear") -> onnx.ModelProto:
    channels = "[4, 12, 3, 3]" if ", u" in joined else "[4, 8, 3, 3]"
    text = UPSAMPLED.replace("JOINED", joined).replace("TAIL", tail).replace("MODE", mode)
    return model_of(text.replace("[4, 8, 3, 3]", channels))


def explicit(
    model: onnx.ModelProto,
    quantized: tuple[str, ...] = ("first", "second", "last"),
    scheme: Scheme = ONNXRUNTIME_CPU_SCHEME,
    samples: int = 16,
) -> onnx.ModelProto:
    ranges = measured_ranges(model, samples_of(model, samples))
    return rewrite(model, find_layers(model), dict.fromkeys(quantized, Precision.INT8), ranges, scheme)


def joins(model: onnx.ModelProto) -> int:
    return sum("QuantizeJoined" in node.name for node in model.graph.node)


def operators(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    session_of(model, optimized=True, dump=folder / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def test_a_float_tensor_is_joined_to_a_quantized_one_in_integers(tmp_path: Path) -> None:
    found = operators(explicit(upsampled()), tmp_path)
    assert (found["QLinearConcat"], found["Concat"]) == (1, 0)


def test_what_only_moves_is_moved_and_joined_in_integers(tmp_path: Path) -> None:
    found = operators(explicit(upsampled(mode="nearest")), tmp_path)
    assert (found["QLinearConcat"], found["Resize"], found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1, 1, 1)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_joining_in_integers_changes_no_value(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = upsampled(mode=mode)
    feeds = samples_of(model)
    found = run(explicit(model), feeds, optimized=False)
    monkeypatch.setattr(QuantizeJoins, "call", lambda _self, unchanged: ir.passes.PassResult(unchanged, modified=False))
    without = explicit(model)
    assert joins(without) == 0
    np.testing.assert_array_equal(found["y"], run(without, feeds, optimized=False)["y"])


def test_a_tensor_that_is_joined_twice_gets_one_pair() -> None:
    assert joins(explicit(upsampled(joined="a, u"))) == 1


@pytest.mark.parametrize(
    ("quantized", "tail", "why"),
    [
        (("last",), "", "all inputs are float"),
        (("first", "second"), "", "the joined tensor is read in float"),
        (("first", "second", "last"), "z = Relu(j)", "another reader wants the joined tensor in float"),
    ],
)
def test_joins_are_left_alone_where(quantized: tuple[str, ...], tail: str, why: str) -> None:
    assert joins(explicit(upsampled(tail=tail), quantized)) == 0, why


def test_joins_are_left_alone_for_tensorrt() -> None:
    assert joins(explicit(upsampled(), scheme=TENSORRT_SCHEME)) == 0


def test_a_constant_is_not_joined_in_integers() -> None:
    text = UPSAMPLED.replace("JOINED", "a, k").replace("TAIL", "").replace("MODE", "linear").replace("[4, 8, 3, 3]", "[4, 9, 3, 3]")
    text = text.replace("[N, 3, 8, 8] x", "[1, 3, 8, 8] x").replace("float[4] scales", "float[1, 1, 8, 8] k, float[4] scales")
    assert joins(explicit(model_of(text), samples=1)) == 0


def test_the_pass_says_whether_it_changed_anything() -> None:
    model = ir.from_proto(upsampled())
    assert not QuantizeJoins(Names(names_in(model)))(model).modified
