"""SmoothQuant in the explicit graph: what is quantized reads the product, everything else keeps the tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from calibration.algorithms.smooth_quant import SmoothQuantScaling, channel_spans, fit_smooth_quants, takes_smooth_quant
from calibration.graph.layers import Layer, find_layers
from calibration.number_formats.precision import Precision
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.engine_builder.fake_quantized import ATTENTION, Ranges, measured_ranges, model_of, run, samples_of
from tests.this_processor import EXACT_HERE

MODEL = model_of(ATTENTION)
LAYERS = find_layers(MODEL)
FEEDS = samples_of(MODEL)
RANGES: Ranges = measured_ranges(MODEL, FEEDS)
CANDIDATES = takes_smooth_quant(MODEL, LAYERS)
SMOOTH_QUANTS = fit_smooth_quants(MODEL, CANDIDATES, channel_spans(MODEL, CANDIDATES, [FEEDS]))


def explicit(
    quantized: Sequence[str], smooth_quants: Sequence[SmoothQuantScaling] = SMOOTH_QUANTS, layers: Sequence[Layer] = LAYERS
) -> onnx.ModelProto:
    return rewrite(MODEL, layers, dict.fromkeys(quantized, Precision.INT8), RANGES, EXACT_HERE, smooth_quants)


def products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Mul"]


def readers(model: onnx.ModelProto, tensor: str) -> set[str]:
    return {node.name for node in model.graph.node if tensor in node.input}


def test_layers_that_read_one_tensor_share_one_product_and_one_pair() -> None:
    model = explicit(["q", "k", "v"])
    onnx.checker.check_model(model, full_check=True)
    (product,) = products(model)
    assert product.input[0] == "x"
    assert len(readers(model, product.output[0])) == 1
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 1


def test_a_float_layer_keeps_the_tensor_and_its_weight() -> None:
    model = explicit(["q"])
    plain = {tensor.name: tensor for tensor in MODEL.graph.initializer}
    kept = {tensor.name: tensor for tensor in model.graph.initializer}
    assert {"k", "v"} <= readers(model, "x")
    assert all(kept[name] == plain[name] for name in ("wk", "wv"))


@pytest.mark.parametrize("quantized", [[], ["scores"], ["skip", "context"]])
def test_without_a_quantized_layer_to_smooth_nothing_changes(quantized: list[str]) -> None:
    assert explicit(quantized).SerializeToString() == explicit(quantized, ()).SerializeToString()


def test_a_quantized_layer_that_is_not_smoothed_shares_nothing_with_those_that_are() -> None:
    model = explicit(["q", "skip"])  # both read x: the sum on its own grid
    onnx.checker.check_model(model, full_check=True)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 4  # x, x smoothed, the other summand, the sum


def test_the_outputs_stay_those_of_the_model_but_for_rounding() -> None:
    (reference,) = run(MODEL, FEEDS, optimized=False).values()
    for optimized in (False, True):
        (found,) = run(explicit(["q", "k", "v"]), FEEDS, optimized=optimized).values()
        assert 0 < np.linalg.norm(found - reference) < 0.02 * np.linalg.norm(reference)  # 8 bits


def test_two_rewrites_are_equal_byte_for_byte() -> None:
    quantized = [layer.name for layer in LAYERS]
    assert explicit(quantized).SerializeToString() == explicit(quantized).SerializeToString()
