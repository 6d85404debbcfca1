"""Rows times matrices against the layer itself."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from calibration.algorithms.weight_rows import product_of
from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from tests.model_text import model_from_text, run, samples_for

CASES = {
    "matmul": ("g (float[N,3,6] x) => (float[N,3,4] y) { y = MatMul(x, w) }", (6, 4)),
    "matmul on the left": ("g (float[N,6,3] x) => (float[N,4,3] y) { y = MatMul(w, x) }", (4, 6)),
    "gemm": ("g (float[N,6] x) => (float[N,4] y) { y = Gemm(x, w) }", (6, 4)),
    "gemm transposed": ("g (float[N,6] x) => (float[N,4] y) { y = Gemm <transB = 1> (x, w) }", (4, 6)),
    "conv": ("g (float[N,3,9,9] x) => (float[N,4,8,8] y) { y = Conv(x, w) }", (4, 3, 2, 2)),
    "conv with all attributes": (
        "g (float[N,4,9,8] x) => (float[N,6,h,v] y) "
        "{ y = Conv <group = 2, strides = [2, 1], dilations = [1, 2], pads = [1, 0, 0, 2]> (x, w) }",
        (6, 2, 3, 2),
    ),
    "depthwise": ("g (float[N,4,7,7] x) => (float[N,4,7,7] y) { y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w) }", (4, 1, 3, 3)),
}


@pytest.mark.parametrize(("text", "shape"), CASES.values(), ids=CASES.keys())
def test_rows_times_matrices_are_the_layers_outputs(text: str, shape: tuple[int, ...]) -> None:
    model = prepare(model_from_text(text, {"w": shape})).model
    (layer,) = find_layers(model)
    feeds = samples_for(model, 5)
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == layer.weight)
    weight = np.asarray(numpy_helper.to_array(stored), np.float32)
    node = next(node for node in model.graph.node if node.name == layer.name)
    product = product_of(layer, node, weight.shape)
    assert product is not None
    found = np.matmul(product.rows(np.asarray(feeds["x"], dtype=np.float32), 10_000), product.matrices(weight))
    (expected,) = run(model, feeds)
    np.testing.assert_allclose(np.sort(found.ravel()), np.sort(expected.ravel()), rtol=1e-4, atol=1e-5)
    levels = np.rint(weight * 20).astype(np.int8)  # the form that rounded weights come back from
    np.testing.assert_array_equal(product.weight(np.asarray(product.matrices(levels), np.int8)), levels)


@pytest.mark.parametrize(("text", "shape"), CASES.values(), ids=CASES.keys())
def test_an_empty_input_has_no_rows_and_adds_nothing_to_their_products(text: str, shape: tuple[int, ...]) -> None:
    model = prepare(model_from_text(text, {"w": shape})).model
    (layer,) = find_layers(model)
    product = product_of(layer, next(node for node in model.graph.node if node.name == layer.name), shape)
    assert product is not None
    some, none = (product.rows(np.asarray(samples_for(model, 5)["x"][:count], dtype=np.float32), 100) for count in (5, 0))
    assert (none.shape[0], none.shape[1], none.shape[2]) == (some.shape[0], 0, some.shape[2])


def test_more_rows_than_the_limit_are_thinned_evenly() -> None:
    model = prepare(model_from_text("g (float[N,2] x) => (float[N,4] y) { y = MatMul(x, w) }", {"w": (2, 4)})).model
    (layer,) = find_layers(model)
    product = product_of(layer, model.graph.node[0], (2, 4))
    assert product is not None
    rows = product.rows(np.arange(2000, dtype=np.float32).reshape(1000, 2), 10)
    assert rows.shape == (1, 10, 2)
    assert (rows[0, 0, 0], rows[0, -1, 0]) == (0.0, 1998.0)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("g (float[N,4,5,5] x) => (float[N,3,h,v] y) { y = ConvTranspose(x, w) }", (4, 3, 2, 2)),
        ("g (float[N,4,9] x) => (float[N,3,v] y) { y = Conv(x, w) }", (3, 4, 2)),
    ],
)
def test_other_layers_are_no_plain_products(text: str, shape: tuple[int, ...]) -> None:
    model = prepare(model_from_text(text, {"w": shape})).model
    (layer,) = find_layers(model)
    assert product_of(layer, next(node for node in model.graph.node if node.name == layer.name), shape) is None
