"""GPTQ weights of whole models: closer to the float model, and the same in probes and in every dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from calibration.algorithms.gptq import InverseFactor
from calibration.algorithms.smooth_quant import channel_spans, fit_smooth_quants, takes_smooth_quant
from calibration.algorithms.weight_rounding import gptq_levels, roundable
from calibration.graph.layers import LayerKind
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision, Scheme
from calibration.number_formats.weight_scales import weight_step
from calibration.sensitivity.perturbed_model import ReferenceModel
from engine_builder.qdq.dialects.base import Dialect, ExplicitPlan
from engine_builder.qdq.dialects.onnxruntime import OnnxRuntimeDialect
from engine_builder.qdq.dialects.tensorrt import TensorRtDialect
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.model_text import Array, cnn, model_from_text, run, samples_for
from tests.probed_models import Probed, probe_of, probed

MLP = "g (float[N,64] x) => (float[N,8] y) { a = MatMul(x, w1) r = Relu(a) b = MatMul(r, w2) c = Relu(b) y = Gemm(c, w3, b3) }"


def mlp(seed: int = 0, scheme: Scheme = TENSORRT_SCHEME, count: int = 256) -> Probed:
    """Return a network whose inputs go together, as those of real layers do."""
    model = model_from_text(MLP, {"w1": (64, 96), "w2": (96, 64), "w3": (64, 8), "b3": (8,)})
    rng = np.random.default_rng(11)
    mixing = rng.normal(size=(12, 64))
    x = np.random.default_rng(seed).normal(size=(count, 12)) @ mixing + 0.1 * np.random.default_rng(seed + 1).normal(size=(count, 64))
    return probed(model, {"x": x.astype(np.float32)}, scheme)


def batches(feeds: Mapping[str, Array], size: int = 32) -> Iterator[dict[str, Array]]:
    count = len(next(iter(feeds.values())))
    for start in range(0, count, size):
        yield {name: value[start : start + size] for name, value in feeds.items()}


def layer_precisions(found: Probed, precision: Precision) -> list[LayerPrecision]:
    return [LayerPrecision(layer.name, precision) for layer in found.layers if layer.kind is LayerKind.WEIGHTED]


def test_four_bit_layers_lose_less_than_half_on_samples_they_were_not_fitted_to() -> None:
    found, fresh = mlp(), mlp(seed=5)
    wanted = layer_precisions(found, Precision.INT4)
    levels = gptq_levels(found.model, found.layers, wanted, TENSORRT_SCHEME, batches(found.feeds))
    assert levels.keys() == {(layer_precision.layer, Precision.INT4) for layer_precision in wanted}
    for layer in found.layers:
        errors = []
        for tried in ({}, levels):
            reference = ReferenceModel(found.model, found.layers, found.ranges, TENSORRT_SCHEME, levels=tried)
            probe = probe_of(reference, fresh.feeds, layer)
            errors.append(float(np.mean((probe.output() - probe.quantized_output(Precision.INT4)) ** 2)))
        assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("precision", "scheme"),
    [(Precision.INT4, TENSORRT_SCHEME), (Precision.INT8, TENSORRT_SCHEME), (Precision.INT8, ONNXRUNTIME_CPU_SCHEME)],
)
def test_the_levels_reach_the_explicit_graph_as_they_are(precision: Precision, scheme: Scheme) -> None:
    found = mlp(scheme=scheme)
    levels = gptq_levels(found.model, found.layers, layer_precisions(found, precision), scheme, batches(found.feeds))
    quantized = {layer.name: precision for layer in found.layers}
    plan = ExplicitPlan(found.model, found.layers, quantized, found.ranges, scheme, Precision.FP32)
    dialect: Dialect = TensorRtDialect() if scheme is TENSORRT_SCHEME else OnnxRuntimeDialect()
    explicit = dialect.explicit(replace(plan, levels=levels))
    stored = [np.asarray(numpy_helper.to_array(tensor)) for tensor in explicit.graph.initializer]
    for array in levels.values():
        assert any(other.shape == array.shape and np.array_equal(other.astype(np.int8), array) for other in stored if other.ndim == 2)
    nearest = dialect.explicit(plan)
    assert explicit != nearest


def test_a_probe_gives_what_the_explicit_graph_of_onnxruntime_gives() -> None:
    found = probed(cnn(), samples_for(cnn(), 32))
    levels = gptq_levels(found.model, found.layers, layer_precisions(found, Precision.INT8), ONNXRUNTIME_CPU_SCHEME, batches(found.feeds))
    reference = ReferenceModel(found.model, found.layers, found.ranges, ONNXRUNTIME_CPU_SCHEME, levels=levels)
    moved = 0
    for layer in found.layers:
        if (layer.name, Precision.INT8) not in levels:
            continue
        probe = probe_of(reference, found.feeds, layer)
        (output,) = probe.outputs_from(probe.quantized_output(Precision.INT8))
        quantized = {layer.name: Precision.INT8}
        with_levels, without = (
            run(rewrite(found.model, found.layers, quantized, found.ranges, ONNXRUNTIME_CPU_SCHEME, levels=tried), found.feeds)[0]
            for tried in (levels, None)
        )
        close = np.isclose(output, with_levels, rtol=1e-3, atol=1e-3)  # a sum in another order turns a value between two levels
        assert close.mean() > 0.95
        moved += not np.array_equal(with_levels, without)
    assert moved


def test_every_level_is_near_its_weight_and_on_the_weights_own_grid() -> None:
    found = mlp()
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer}
    layers = {layer.name: layer for layer in found.layers}
    for precision in (Precision.INT4, Precision.INT8):
        levels = gptq_levels(found.model, found.layers, layer_precisions(found, precision), TENSORRT_SCHEME, batches(found.feeds))
        for (name, _), array in levels.items():
            weight = np.asarray(tensors[str(layers[name].weight)], dtype=np.float32)
            step = weight_step(weight, layers[name], precision, TENSORRT_SCHEME)
            assert np.abs(array).max() <= 2 ** (precision.bits - 1) - 1
            assert np.sqrt(np.mean((array - weight / step) ** 2)) < 1.5  # steps


def test_eight_bit_weights_behind_a_smooth_quant_scaling_are_rounded_as_they_are_divided() -> None:
    found = mlp(scheme=ONNXRUNTIME_CPU_SCHEME)
    eligible = takes_smooth_quant(found.model, found.layers)
    smooth_quants = fit_smooth_quants(found.model, eligible, channel_spans(found.model, eligible, batches(found.feeds)))
    wanted = layer_precisions(found, Precision.INT8)
    levels = gptq_levels(found.model, found.layers, wanted, ONNXRUNTIME_CPU_SCHEME, batches(found.feeds), smooth_quants)
    for layer in found.layers:
        errors = []
        for tried in ({}, levels):
            reference = ReferenceModel(found.model, found.layers, found.ranges, ONNXRUNTIME_CPU_SCHEME, smooth_quants, levels=tried)
            smooth_quant = reference.smooth_quant(layer)
            assert smooth_quant is not None
            divided = reference.rounded_weight(layer, Precision.INT8) / smooth_quant.factor[:, None]
            x = np.asarray(probe_of(reference, found.feeds, layer).inside[layer.inputs[0]], dtype=np.float64)
            errors.append(float(np.mean((x @ (divided * smooth_quant.factor[:, None] ** 2 - reference.weight(layer))) ** 2)))
        assert errors[1] < errors[0]


def test_only_plain_products_are_roundable() -> None:
    found = probed(cnn(), samples_for(cnn(), 4))
    assert set(roundable(found.model, found.layers)) == {layer.name for layer in found.layers if layer.kind is LayerKind.WEIGHTED}


UNROLLED = """g (float[N,64] x, float[N,64] z) => (float[N,64] y) {
    a = MatMul(x, w) ra = Relu(a) b = MatMul(ra, w) rb = Relu(b) c = MatMul(z, w) s = Add(rb, c) rs = Relu(s) y = MatMul(rs, v) }"""


def test_a_weight_that_several_layers_have_is_rounded_once_to_what_all_of_them_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_from_text(UNROLLED, {"w": (64, 64), "v": (64, 64)})
    found = probed(model, samples_for(model, 64), TENSORRT_SCHEME)
    inverted: list[NDArray[np.float64]] = []

    class Counting(InverseFactor):
        def __init__(self, hessian: NDArray[np.float64], count: int = 1) -> None:
            inverted.append(hessian / count)
            super().__init__(hessian, count)

    monkeypatch.setattr("calibration.algorithms.weight_rounding.InverseFactor", Counting)
    seen: list[tuple[int, int]] = []
    wanted = layer_precisions(found, Precision.INT4)
    assert len(wanted) == 4
    levels = gptq_levels(
        found.model,
        found.layers,
        wanted,
        TENSORRT_SCHEME,
        batches(found.feeds),
        on_layer=lambda done, total: seen.append((done, total)),
    )
    assert len(inverted) == 2
    first, *others = [levels[layer_precision.layer, Precision.INT4] for layer_precision in wanted[:3]]
    for other in others:
        np.testing.assert_array_equal(other, first)
    values = dict(zip(("x", "z", "ra"), [*found.feeds.values(), np.maximum(found.feeds["x"] @ weight_in(found, "w"), 0)], strict=True))
    whole = sum(value.T.astype(np.float64) @ value for value in values.values()) / (3 * 64)
    np.testing.assert_allclose(inverted[0], whole, rtol=1e-4, atol=1e-5)  # float32 sums, batch by batch
    assert seen == [(done, 4) for done in range(1, 5)]


def test_the_widest_inputs_are_left_to_the_nearest_levels_where_the_work_is_too_much() -> None:
    model = model_from_text(
        "g (float[N,64] x) => (float[N,8] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }", {"w": (64, 128), "v": (128, 8)}
    )
    found = probed(model, samples_for(model, 32), TENSORRT_SCHEME)
    wanted = layer_precisions(found, Precision.INT4)
    narrow = 2.4 * 64**3
    taken = [
        {name for name, _ in gptq_levels(found.model, found.layers, wanted, TENSORRT_SCHEME, batches(found.feeds), most_work=work)}
        for work in (narrow - 1, narrow, 9 * narrow)
    ]
    names = [layer_precision.layer for layer_precision in wanted]
    assert taken == [set(), {names[0]}, set(names)]


def test_wide_inputs_of_which_few_rows_were_seen_are_left_to_the_nearest_levels() -> None:
    model = model_from_text("g (float[N,256] x) => (float[N,8] y) { a = MatMul(x, w) y = MatMul(a, v) }", {"w": (256, 64), "v": (64, 8)})
    wide, narrow = "MatMul_a", "MatMul_y"
    rounded = []
    for samples in (7, 8):  # a thirty-second of 256
        found = probed(model, samples_for(model, samples), TENSORRT_SCHEME)
        wanted = layer_precisions(found, Precision.INT4)
        for width in (256, 257):
            levels = gptq_levels(found.model, found.layers, wanted, TENSORRT_SCHEME, batches(found.feeds), costly_width=width)
            rounded.append({name for name, _ in levels})
    assert rounded == [{narrow}, {wide, narrow}, {wide, narrow}, {wide, narrow}]


def weight_in(found: Probed, name: str) -> NDArray[np.float32]:
    tensor = next(tensor for tensor in found.model.graph.initializer if tensor.name == name)
    return np.asarray(numpy_helper.to_array(tensor), dtype=np.float32)


def depthwise(count: int = 24) -> Probed:
    """A depthwise convolution of channels that hardly vary about a mean."""
    model = model_from_text(
        "g (float[N,8,6,6] x) => (float[N,8,6,6] y) { y = Conv<pads=[1,1,1,1], group=8>(x, w, b) }", {"w": (8, 1, 3, 3), "b": (8,)}
    )
    rng = np.random.default_rng(2)
    x = 1.0 + 0.05 * rng.normal(size=(count, 8, 6, 6))
    return probed(model, {"x": x.astype(np.float32)})


def product(count: int = 256) -> Probed:
    """A product whose inputs hardly vary about a mean, and together."""
    model = model_from_text("g (float[N,24] x) => (float[N,8] y) { y = Gemm(x, w, b) }", {"w": (24, 8), "b": (8,)})
    rng = np.random.default_rng(3)
    x = np.linspace(1.0, 3.0, 24) + 0.05 * rng.normal(size=(count, 4)) @ rng.normal(size=(4, 24))
    return probed(model, {"x": x.astype(np.float32)})


@pytest.mark.parametrize("make", [depthwise, product])
def test_levels_about_the_mean_err_less_once_the_bias_is_corrected(make: Callable[[], Probed]) -> None:
    found = make()
    (layer,) = found.layers
    wanted = [LayerPrecision(layer.name, Precision.INT8)]
    spreads = []
    for centred in ((), (layer.name,)):
        levels = gptq_levels(found.model, found.layers, wanted, found.scheme, batches(found.feeds, 8), centred=centred)
        reference = ReferenceModel(found.model, found.layers, found.ranges, found.scheme, levels=levels)
        probe = probe_of(reference, found.feeds, layer)
        off = probe.output(weight=reference.rounded_weight(layer, Precision.INT8)) - probe.output()
        axes = (0, 2, 3) if off.ndim == 4 else (0,)
        spreads.append(float(np.mean((off - off.mean(axis=axes, keepdims=True)) ** 2)))
    assert spreads[1] < 0.9 * spreads[0]


def test_the_middle_of_the_inputs_costs_no_digits() -> None:
    """Second moments about a mean that is ten thousand times the deviation are those of the deviations."""
    plain = mlp(scheme=ONNXRUNTIME_CPU_SCHEME)
    wanted = layer_precisions(plain, Precision.INT8)[:1]
    levels = [
        gptq_levels(plain.model, plain.layers, wanted, plain.scheme, batches({"x": x}), centred=(wanted[0].layer,))[
            wanted[0].layer, Precision.INT8
        ]
        for x in (plain.feeds["x"] / 4, plain.feeds["x"] / 4 + np.float32(4096.0))
    ]
    assert np.mean(levels[0] == levels[1]) > 0.95  # the inputs themselves lose digits
