from __future__ import annotations

import onnx

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME
from engine_builder.profiling.borders import borders_between
from engine_builder.search.times.borders import Border, Reader
from engine_builder.search.times.layouts import Layout
from tests.model_text import model_from_text

BLOCKED, FLOATS, INTEGERS, LAST = Layout
PICTURES = """g (float[N,3,8,8] x) => (float[N,4] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1)
    r = Relu(a)
    b = Conv<pads=[1,1,1,1]>(r, w2)
    s = Add(r, b)
    p = GlobalAveragePool(s)
    f = Flatten(p)
    y = Gemm(f, w3)
}"""
WEIGHTS = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 4)}


def borders_of(model: onnx.ModelProto) -> dict[str, Border]:
    """Return the borders by the name of the layer that writes them, or of the first that reads them."""
    prepared = prepare(model).model
    found = borders_between(prepared, find_layers(prepared), ONNXRUNTIME_CPU_SCHEME, {"x": 192})
    return {border.writer or border.readers[0].layer: border for border in found}


def test_the_first_convolution_reads_a_picture_as_it_is() -> None:
    model = model_from_text(PICTURES.replace("float[N,4] y", "float[N,4] y"), WEIGHTS)
    prepared = prepare(model).model
    first = borders_between(prepared, find_layers(prepared), ONNXRUNTIME_CPU_SCHEME, {"x": 192})[0]
    assert first == Border(None, FLOATS, INTEGERS, (Reader("Conv_a", FLOATS, LAST),), (), 192)


def test_between_convolutions_floats_are_blocked_and_integers_have_their_channels_last() -> None:
    border = borders_of(model_from_text(PICTURES, WEIGHTS))["Conv_a"]
    assert (border.floats, border.integers) == (BLOCKED, LAST)
    assert border.readers == (Reader("Conv_b", BLOCKED, LAST), Reader("Add_s", None, None))


def test_a_sum_writes_what_it_reads_and_a_pool_behind_it_follows() -> None:
    border = borders_of(model_from_text(PICTURES, WEIGHTS))["Add_s"]
    assert (border.floats, border.integers, border.others) == (BLOCKED, LAST, (None,))


def test_texts_have_no_layouts() -> None:
    text = "g (float[N,4,8] x) => (float[N,4,8] y) { a = MatMul(x, w1) s = Add(a, x) y = MatMul(s, w2) }"
    borders = borders_of(model_from_text(text, {"w1": (8, 8), "w2": (8, 8)}))
    assert {border.floats for border in borders.values()} == {FLOATS}
    assert borders["Add_s"].integers is INTEGERS
    assert all(reader.floats in (FLOATS, None) for border in borders.values() for reader in border.readers)
