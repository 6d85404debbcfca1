"""Probes of one layer, or of two, give what the whole model gives with those layers changed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.execution.onnxruntime_session import Array
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision, Scheme
from calibration.sensitivity.simulated_layers import quantized_layer
from tests.model_text import ModelMaker, model_from_text, one_batch, run, samples_for
from tests.models import AWKWARD
from tests.probed_models import SYMMETRIC_SCHEME, assert_close, probe_of, probed

AWKWARD_MODELS = pytest.mark.parametrize("maker", AWKWARD.values(), ids=AWKWARD.keys())
SCHEMES = pytest.mark.parametrize("scheme", [ONNXRUNTIME_CPU_SCHEME, SYMMETRIC_SCHEME], ids=["onnxruntime", "symmetric"])


def branches() -> onnx.ModelProto:
    """Two branches of one tensor, a layer output that is a graph output too, moved tensors, all kinds of layers without a bias."""
    return model_from_text(
        """g (float[N,3,8,8] x) => (float[N,4,8,8] stem, float[N,5] logits)
        <float zero = {0.0}, float six = {6.0}> {
            c0 = Conv<pads=[1,1,1,1]>(x, w0)
            stem = Relu(c0)
            c1 = Conv<pads=[1,1,1,1], group=4>(stem, w1)
            r1 = Clip(c1, zero, six)
            c2 = Conv(stem, w2)
            sum = Add(r1, c2)
            up = ConvTranspose<strides=[2,2]>(sum, w3)
            pooled = MaxPool<kernel_shape=[4,4], strides=[4,4]>(up)
            flat = Flatten(pooled)
            hidden = MatMul(flat, w4)
            logits = Gemm<transB=1>(hidden, w5)
        }""",
        {"w0": (4, 3, 3, 3), "w1": (4, 1, 3, 3), "w2": (4, 4, 1, 1), "w3": (4, 2, 2, 2), "w4": (32, 6), "w5": (5, 6)},
    )


def named_like_roundings() -> onnx.ModelProto:
    """Tensors of the user that are called as a probe would call what it makes of the tensors that it rounds."""
    return model_from_text(
        """g (float[N,4] x) => (float[N,5] y) {
            x__rounded = MatMul(x, x__rounded__scale)
            x__rounded__half = Relu(x__rounded)
            x__rounded__levels = MatMul(x__rounded__half, w2)
            x__rounded__rounded_output = Add(x__rounded__half, x__rounded__levels)
            y = Gemm(x__rounded__rounded_output, w3)
        }""",
        {"x__rounded__scale": (4, 6), "w2": (6, 6), "w3": (6, 5)},
    )


PROBED: dict[str, ModelMaker] = {"branches": branches, "named_like_roundings": named_like_roundings} | {
    name: AWKWARD[name] for name in ("cnn", "attention", "conv_transpose", "odd_names")
}
PROBED_MODELS = pytest.mark.parametrize("maker", PROBED.values(), ids=PROBED.keys())


def probing_samples(model: onnx.ModelProto) -> dict[str, Array]:
    """Sixteen samples; nothing is masked, since a mask of -10000 would hide what the layers before it do."""
    feeds = samples_for(model, 16)
    return {name: np.ones_like(value) if name == "mask" else value for name, value in feeds.items()}


def assert_same_perturbation(found: Sequence[Array], expected: Sequence[Array], plain: Sequence[Array]) -> None:
    """The changes from the float outputs agree to a fifth: a value on the edge of two levels may fall either way, an int32 bias rounds."""
    x, y, z = (np.concatenate([part.astype(np.float64).ravel() for part in parts]) for parts in (found, expected, plain))
    moved, off = np.sum((y - z) ** 2), np.sum((x - y) ** 2)
    assert moved > 0
    assert off <= 0.04 * moved


@AWKWARD_MODELS
def test_the_cut_model_and_every_unchanged_probe_give_the_models_own_outputs(maker: ModelMaker) -> None:
    model = maker()
    case = probed(model, one_batch(model))
    expected = case.outputs()
    for size, lean in itertools.product((1, 2, 100), (False, True)):
        run_of_all = case.reference(size, lean=lean).begin(case.feeds)
        for got, wanted in zip(run_of_all.outputs, expected, strict=True):
            assert_close(got, wanted)
        probes = 0
        for probe in run_of_all.probes():
            probes += 1
            for got, wanted in zip(probe.outputs_from(probe.output()), expected, strict=True):
                assert_close(got, wanted)
        assert probes == len(case.layers)


def test_another_weight_gives_the_model_with_that_weight() -> None:
    case = probed(branches(), samples_for(branches(), 4))
    for layer in case.layers:
        if layer.weight is None:
            continue
        changed = onnx.ModelProto()
        changed.CopyFrom(case.model)
        tensor = next(tensor for tensor in changed.graph.initializer if tensor.name == layer.weight)
        weight = numpy_helper.to_array(tensor) * np.float32(1.5)
        tensor.CopyFrom(numpy_helper.from_array(weight, layer.weight))
        probe = probe_of(case.reference(2), case.feeds, layer)
        for got, wanted in zip(probe.outputs_from(probe.output(weight=weight)), run(changed, case.feeds), strict=True):
            assert_close(got, wanted, atol=1e-4)


def test_another_input_reaches_the_probed_layer_alone() -> None:
    model = model_from_text(
        "g (float[N,4] x) => (float[N,3] a, float[N,3] b) { a = MatMul(x, wa) b = MatMul(x, wb) }", {"wa": (4, 3), "wb": (4, 3)}
    )
    case = probed(model, samples_for(model, 5))
    x = np.asarray(case.feeds["x"], dtype=np.float32)
    probe = probe_of(case.reference(1), case.feeds, case.layer("a"))
    a, b = probe.outputs_from(probe.output(inputs={"x": 2 * x}))
    plain_a, plain_b = case.outputs()
    assert_close(a, 2 * np.asarray(plain_a, dtype=np.float32))
    assert_close(b, plain_b)


@SCHEMES
@PROBED_MODELS
def test_one_quantized_layer_gives_the_outputs_of_the_explicit_graph(maker: ModelMaker, scheme: Scheme) -> None:
    model = maker()
    case = probed(model, probing_samples(model), scheme)
    plain = case.outputs()
    for size, lean in ((1, False), (1, True), (3, True)):
        for probe in case.reference(size, lean=lean).begin(case.feeds).probes():
            found = probe.outputs_from(probe.quantized_output(Precision.INT8))
            assert_same_perturbation(found, case.explicit_outputs(probe.layer), plain)


@SCHEMES
@PROBED_MODELS
def test_two_quantized_layers_give_the_outputs_of_the_explicit_graph(maker: ModelMaker, scheme: Scheme) -> None:
    model = maker()
    case = probed(model, probing_samples(model), scheme)
    plain = case.outputs()
    expected = {pair: case.explicit_outputs(*pair) for pair in itertools.combinations(case.layers, 2)}
    for size, lean in ((1, True), (3, False), (100, False)):
        reference = case.reference(size, lean=lean)
        reference.open_pairs(expected)
        run_of_all = reference.begin(case.feeds)
        for probe in run_of_all.probes():
            for (first, second), wanted in expected.items():
                if first == probe.layer:
                    found = probe.outputs_with(probe.quantized_output(Precision.INT8), second, Precision.INT8)
                    assert_same_perturbation(found, wanted, plain)


def test_large_matrices_are_fed_and_give_the_same() -> None:
    model = model_from_text(
        """g (int64[N,3] ids) => (float[N,3,5] y) {
            x = Gather<axis=0>(table, ids)
            h = MatMul(x, w1)
            r = Relu(h)
            y = MatMul(r, w2)
        }""",
        {"table": (300, 300), "w1": (300, 300), "w2": (300, 5)},
    )
    case = probed(model, samples_for(model, 8))
    reference = case.reference(1)
    assert reference.graph.matrices.keys() == {"table", "w1"}
    plain = case.outputs()
    for probe in reference.begin(case.feeds).probes():
        assert_same_perturbation(probe.outputs_from(probe.quantized_output(Precision.INT8)), case.explicit_outputs(probe.layer), plain)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4, Precision.BF16])
def test_the_large_weight_of_a_quantized_convolution_is_fed_and_gives_the_same(precision: Precision) -> None:
    model = model_from_text(
        "g (float[N,128,4,4] x) => (float[N,64,4,4] y) { y = Conv<pads=[1,1,1,1]>(x, w) }",
        {"w": (64, 128, 3, 3)},
    )
    scheme = TENSORRT_SCHEME if precision is Precision.BF16 else ONNXRUNTIME_CPU_SCHEME
    case = probed(model, samples_for(model, 4), scheme)
    reference = case.reference()
    graph, (unit,) = reference.graph, reference.graph.units
    weight = reference.rounded_weight(unit.layer, precision)
    quantized = quantized_layer(graph, unit, precision, case.ranges, scheme)
    assert not quantized.graph.initializer or "w" not in {tensor.name for tensor in quantized.graph.initializer}
    (probe,) = reference.begin(case.feeds).probes()
    quantized.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    del quantized.graph.input[[value.name for value in quantized.graph.input].index("w")]
    assert_close(probe.quantized_output(precision), run(quantized, case.feeds)[0])


def test_a_tensor_between_two_quantized_layers_is_rounded_once() -> None:
    """A second pair on the same grid changes nothing, so the probes may write both."""
    model = model_from_text("g (float[N,6] x) => (float[N,6] y) { a = Gemm(x, w1) y = Gemm(a, w2) }", {"w1": (6, 6), "w2": (6, 6)})
    case = probed(model, samples_for(model, 32))
    reference = case.reference(1)
    first, second = case.layers
    probe = probe_of(reference, case.feeds, first)
    once = probe.quantized_output(Precision.INT8)
    (found,) = probe.outputs_with(once, second, Precision.INT8)
    step = (case.ranges["y"][1] - case.ranges["y"][0]) / 255
    levels = (
        np.round(once @ reference.rounded_weight(second, Precision.INT8) / step) * step
    )  # nothing rounded but the second layer's weight and output
    assert np.abs(np.asarray(found, np.float64) - levels).max() <= 1.01 * step


def test_outputs_that_are_an_input_a_constant_or_one_tensor_twice_are_given_back() -> None:
    model = model_from_text(
        """g (float[N,4] x) => (float[N,3] y, float[N,3] twin, float[N,4] echo, float[3] version) {
            h = MatMul(x, w1) r = Relu(h) y = MatMul(r, w2) twin = Identity(y) echo = Identity(x) }""",
        {"w1": (4, 5), "w2": (5, 3), "version": (3,)},
    )
    found = probed(model, samples_for(model, 6))
    run_ = found.reference().begin(found.feeds)
    for expected, given in zip(run(model, found.feeds), run_.outputs, strict=True):
        assert_close(np.asarray(given), expected)  # pieces may sum in another order
    probe = next(run_.probes())
    y, twin, echo, version = probe.outputs_from(np.zeros((6, 5), dtype=np.float32))
    np.testing.assert_array_equal(y, np.zeros((6, 3)))
    np.testing.assert_array_equal(twin, y)
    np.testing.assert_array_equal(echo, found.feeds["x"])
    np.testing.assert_array_equal(version, run_.outputs[3])
