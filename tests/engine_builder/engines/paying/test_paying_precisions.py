"""Precisions whose kernels do not pay cost no engine: what is left out, and what is tried only in need."""

from __future__ import annotations

import pytest

from calibration.graph.layers import find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import Precision
from engine_builder.backends.onnxruntime.product_times import FORMS, ProductShape, Shapes, Times
from engine_builder.engines.paying.paying_precisions import judged, paying_precisions, product_shapes
from tests.model_text import model_from_text

INT8, DYNAMIC, EIGHT, FOUR = Precision.INT8, Precision.INT8_DYNAMIC, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS
ALL = (INT8, DYNAMIC, EIGHT, FOUR)
MODEL = prepare(
    model_from_text(
        """g (float[N,6,16] x) => (float[N,6,5] y) {
        a = MatMul(x, w1)
        b = MatMul(a, w2)
        c = MatMul(b, w3)
        s = Add(c, b)
        y = MatMul(s, w4)
    }""",
        {"w1": (16, 32), "w2": (32, 32), "w3": (32, 32), "w4": (32, 5)},
    )
).model
LAYERS = find_layers(MODEL, {"x": (1, 6, 16)})
WEIGHTS = {tensor.name: tuple(tensor.dims) for tensor in MODEL.graph.initializer}
PRODUCTS = [layer for layer in LAYERS if layer.weight is not None]


def times(dynamic: float, eight: float, four: float) -> Times:
    return dict(zip(FORMS, (1.0, dynamic, eight, four), strict=True))


@pytest.mark.parametrize(
    ("spent", "left_out", "last_resorts"),
    [
        (times(0.4, 1.2, 1.3), {EIGHT, FOUR}, ()),  # many rows, on a processor where blocks are slow
        (times(0.4, 0.8, 0.9), {FOUR}, (EIGHT,)),  # many rows: more accurate than dynamic integers, and slower
        (times(0.4, 1.05, 1.0), {FOUR}, (EIGHT,)),
        (times(0.3, 0.2, 0.28), {DYNAMIC, FOUR}, ()),  # one row, matrices that fit a cache
        (times(0.28, 0.28, 0.14), {DYNAMIC}, ()),  # one row, matrices that do not
        (times(0.28, 0.3, 0.14), set(), (EIGHT,)),
        (times(0.28, 0.3, 0.27), {FOUR}, (EIGHT,)),  # less than a tenth faster: it loses most
    ],
)
def test_what_is_left_out_and_what_is_a_last_resort(spent: Times, left_out: set[Precision], last_resorts: tuple[Precision, ...]) -> None:
    assert judged(spent) == (frozenset(left_out), last_resorts)


def test_products_are_counted_by_shape_at_the_rows_of_a_timed_call() -> None:
    assert product_shapes(PRODUCTS, WEIGHTS, 4) == {ProductShape(24, 16, 32): 1, ProductShape(24, 32, 32): 2, ProductShape(24, 32, 5): 1}


def test_a_gemm_with_a_transposed_weight_has_its_shape() -> None:
    model = prepare(model_from_text("g (float[N,16] x) => (float[N,3] y) { y = Gemm<transB=1>(x, w) }", {"w": (3, 16)})).model
    layers = find_layers(model, {"x": (1, 16)})
    assert product_shapes(layers, {"w": (3, 16)}, 1) == {ProductShape(1, 16, 3): 1}


def test_layers_keep_what_pays_in_their_order() -> None:
    eligible = {layer.name: ALL if layer.weight is not None else (INT8,) for layer in LAYERS}
    seen: list[Shapes] = []

    def measure(shapes: Shapes) -> Times:
        seen.append(shapes)
        return times(0.4, 0.8, 0.9)

    found = paying_precisions(LAYERS, WEIGHTS, eligible, measure, samples=1)
    assert found.eligible == {layer.name: (INT8, DYNAMIC, EIGHT) if layer.weight is not None else (INT8,) for layer in LAYERS}
    assert found.last_resorts == (EIGHT,)
    assert len(seen) == 1


def test_nothing_is_measured_where_no_layer_may_be_in_blocks() -> None:
    def measure(shapes: Shapes) -> Times:
        raise AssertionError(shapes)

    eligible = {layer.name: (INT8, DYNAMIC) for layer in LAYERS}
    assert paying_precisions(LAYERS, WEIGHTS, eligible, measure, samples=1).eligible == eligible
