from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.algorithms.smooth_quant import (
    SmoothQuantScaling,
    channel_spans,
    divided,
    fit_smooth_quants,
    multiplied,
    takes_smooth_quant,
)
from calibration.execution.onnxruntime_session import Array
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision, Scheme
from tests.model_text import model_from_text, samples_for
from tests.probed_models import SYMMETRIC_SCHEME, Probed, assert_close, probe_of, probed


def two_readers() -> onnx.ModelProto:
    """Two layers that read one tensor, a third that reads what they make."""
    return model_from_text(
        "g (float[N,5,8] x) => (float[N,5,3] y) { a = MatMul(x, wa) b = MatMul(x, wb) c = Add(a, b) y = MatMul(c, wy) }",
        {"wa": (8, 6), "wb": (8, 6), "wy": (6, 3)},
    )


def uneven(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the samples with one channel a hundred times as large as the others."""
    return {name: np.asarray(value * np.where(np.arange(value.shape[-1]) == 1, 100, 1), dtype=np.float32) for name, value in feeds.items()}


def smoothed(case: Probed) -> Probed:
    layers = takes_smooth_quant(case.model, case.layers)
    return dataclasses.replace(case, smooth_quants=fit_smooth_quants(case.model, layers, channel_spans(case.model, layers, [case.feeds])))


def of(case: Probed, tensor: str) -> SmoothQuantScaling:
    return next(smooth_quant for smooth_quant in case.smooth_quants if smooth_quant.tensor == tensor)


def test_the_factors_share_the_spread_between_input_and_weight() -> None:
    case = smoothed(probed(two_readers(), uneven(samples_for(two_readers(), 20))))
    x = np.abs(np.asarray(case.feeds["x"])).max(axis=(0, 1))
    weights = [numpy_helper.to_array(tensor) for tensor in case.model.graph.initializer if list(tensor.dims) == [8, 6]]
    w = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    np.testing.assert_allclose(of(case, "x").factor, np.sqrt(w / x), rtol=1e-5)  # float32


def test_the_range_is_that_of_the_product() -> None:
    case = smoothed(probed(two_readers(), uneven(samples_for(two_readers(), 20))))
    found = of(case, "x")
    product = np.asarray(case.feeds["x"], dtype=np.float32) * found.factor
    assert (found.low, found.high) == (float(product.min()), float(product.max()))


def test_all_readers_of_a_tensor_share_its_factors() -> None:
    case = smoothed(probed(two_readers(), samples_for(two_readers(), 8)))
    assert [len(smooth_quant.layers) for smooth_quant in case.smooth_quants] == [2, 1]


def test_the_divided_weight_undoes_the_factors() -> None:
    case = smoothed(probed(two_readers(), uneven(samples_for(two_readers(), 8))))
    layer, factor = case.layer("a"), of(case, "x").factor
    x, weight = np.asarray(case.feeds["x"], dtype=np.float32), case.reference().weight(layer)
    assert_close((x * factor) @ divided(weight, layer, factor), x @ weight, atol=1e-3)  # values up to 300, float32
    assert_close(multiplied(divided(weight, layer, factor), layer, factor), weight)


def test_channel_spans_do_not_depend_on_how_samples_are_batched() -> None:
    case = probed(two_readers(), samples_for(two_readers(), 7))
    layers = takes_smooth_quant(case.model, case.layers)
    whole = channel_spans(case.model, layers, [case.feeds])
    parts = channel_spans(case.model, layers, [{"x": case.feeds["x"][:3]}, {"x": case.feeds["x"][3:]}])
    assert whole.keys() == parts.keys()
    for name, (low, high) in whole.items():
        assert_close(parts[name][0], low)
        assert_close(parts[name][1], high)


def test_a_channel_that_is_always_zero_gets_a_finite_factor() -> None:
    feeds = {"x": np.asarray(samples_for(two_readers(), 8)["x"] * (np.arange(8) != 2), dtype=np.float32)}
    factor = of(smoothed(probed(two_readers(), feeds)), "x").factor
    assert np.isfinite(factor).all()
    assert (factor > 0).all()


def test_a_tensor_that_is_always_zero_is_left_as_it_is() -> None:
    feeds = {"x": np.zeros((4, 5, 8), dtype=np.float32)}
    assert (of(smoothed(probed(two_readers(), feeds)), "x").factor == 1).all()


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("g (float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv(x, w) }", {"w": (4, 3, 3, 3)}),
        ("g (float[N,4,8] x) => (float[N,3,8] y) { y = MatMul(w, x) }", {"w": (3, 4)}),
        ("g (float[N,4,8] x) => (float[N,4,3] y) { y = MatMul(x, w) }", {"w": (4, 8, 3)}),
        ("g (float[N,8] x) => (float[8,3] y) { y = Gemm<transA=1>(x, w) }", {"w": (4, 3)}),
    ],
)
def test_layers_of_another_form_are_not_smoothed(text: str, weights: Mapping[str, tuple[int, ...]]) -> None:
    model = model_from_text(text, weights)
    case = probed(model, samples_for(model, 4))
    assert takes_smooth_quant(case.model, case.layers) == ()


@pytest.mark.parametrize("scheme", [ONNXRUNTIME_CPU_SCHEME, SYMMETRIC_SCHEME], ids=["onnxruntime", "symmetric"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_probe_of_a_smoothed_layer_gives_the_outputs_of_the_explicit_graph(scheme: Scheme, transposed: int) -> None:
    model = model_from_text(
        f"g (float[N,8] x) => (float[N,3] y) {{ a = Gemm<transB={transposed}, alpha=0.5>(x, w1, b1) y = MatMul(a, w2) }}",
        {"w1": (6, 8) if transposed else (8, 6), "b1": (6,), "w2": (6, 3)},
    )
    case = smoothed(probed(model, uneven(samples_for(model, 64)), scheme))
    assert len(case.smooth_quants) == 2
    (plain,) = case.outputs()
    for layer in case.layers:
        probe = probe_of(case.reference(1), case.feeds, layer)
        (found,) = probe.outputs_from(probe.quantized_output(Precision.INT8))
        (expected,) = case.explicit_outputs(layer)
        off, moved = np.linalg.norm(found - expected), np.linalg.norm(expected - plain)
        assert 0 < off < 0.1 * moved or off < 1e-5 * np.linalg.norm(plain)  # a value between two levels may fall either way


def test_a_large_matrix_is_fed_divided() -> None:
    model = model_from_text(
        "g (float[N,300] x) => (float[N,4] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }", {"w1": (300, 300), "w2": (300, 4)}
    )
    case = smoothed(probed(model, uneven(samples_for(model, 16))))
    layer, reference = case.layers[0], case.reference(1)
    assert layer.weight in reference.graph.matrices
    (plain,), (expected,) = case.outputs(), case.explicit_outputs(layer)
    probe = probe_of(reference, case.feeds, layer)
    (found,) = probe.outputs_from(probe.quantized_output(Precision.INT8))
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected - plain)  # a value between two levels may fall either way


def test_smooth_quant_lowers_the_loss_where_one_channel_is_large() -> None:
    plain = probed(two_readers(), uneven(samples_for(two_readers(), 64)))
    layer = plain.layer("a")
    (reference,) = plain.outputs()
    errors = [np.linalg.norm(case.explicit_outputs(layer)[0] - reference) for case in (plain, smoothed(plain))]
    assert errors[1] < 0.5 * errors[0]


def test_an_empty_input_has_no_spans_and_no_smooth_quant() -> None:
    model = model_from_text(
        """g (float[N,8] x, bool[N] keep) => (float[N,3] y, float[M,6] z) {
            y = MatMul(x, wy) rows = Compress<axis=0>(x, keep) z = MatMul(rows, wz) }""",
        {"wy": (8, 3), "wz": (8, 6)},
    )
    every = {**samples_for(model, 6), "keep": np.ones(6, np.bool_)}
    feeds = {**every, "keep": np.zeros(6, np.bool_)}
    case = probed(model, every)
    layers = takes_smooth_quant(case.model, case.layers)
    spans = channel_spans(case.model, layers, [feeds])
    assert spans.keys() == {"x"}
    assert [smooth_quant.tensor for smooth_quant in fit_smooth_quants(case.model, layers, spans)] == ["x"]
    some = channel_spans(case.model, layers, [feeds, every])
    np.testing.assert_array_equal(some["rows"], some["x"])
