"""Times of products: every form is run, and of large models a share."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from calibration.number_formats.precision import Precision
from engine_builder.backends.onnxruntime.product_times import FORMS, LARGEST, ProductShape, product_times, some_products


@pytest.mark.parametrize("threads", [1, 2])
def test_every_form_is_timed(threads: int) -> None:
    found = product_times({ProductShape(3, 100, 24): 2, ProductShape(3, 24, 7): 1}, threads=threads)
    assert set(found) == set(FORMS)
    assert all(milliseconds > 0.0 for milliseconds in found.values())


def test_every_form_is_the_operators_that_engines_have(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[onnx.ModelProto] = []
    session = onnxruntime.InferenceSession

    def noted(model: bytes, *args: object, **kwargs: object) -> onnxruntime.InferenceSession:
        opened.append(onnx.load_from_string(model))
        return session(model, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    product_times({ProductShape(1, 200, 8): 1}, threads=1)
    operators = [tuple(node.op_type for node in model.graph.node) for model in opened]
    dynamic = ("DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul")
    assert operators == [("MatMul",), dynamic, ("MatMulNBits",), ("MatMulNBits",)]
    bits = [attribute.i for model in opened for node in model.graph.node for attribute in node.attribute if attribute.name == "bits"]
    assert bits == [Precision.INT8_WEIGHTS.bits, Precision.INT4_WEIGHTS.bits]


def test_all_products_are_timed_where_they_are_small() -> None:
    shapes = {ProductShape(1, 16, 32): 3, ProductShape(1, 32, 8): 1}
    assert some_products(shapes) == (ProductShape(1, 16, 32),) * 3 + (ProductShape(1, 32, 8),)


def test_of_many_or_large_ones_about_as_many_as_fit() -> None:
    many = some_products({ProductShape(1, 1024, 1024): 40, ProductShape(1, 4096, 1024): 10})
    one = some_products({ProductShape(1, 4096, 25088): 1})
    for products in (many, one):
        assert 0.5 * LARGEST < sum(shape.inputs * shape.outputs for shape in products) <= 2 * LARGEST
    assert {shape.inputs for shape in many} == {1024, 4096}
    assert np.all([shape.rows == 1 for shape in (*many, *one)])
