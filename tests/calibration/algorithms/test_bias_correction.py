from __future__ import annotations

import ctypes
import gc
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.algorithms.bias_correction import BiasLocation, bias_locations, corrections, mean_outputs
from calibration.execution.onnxruntime_session import Array
from calibration.number_formats.precision import Precision
from engine_builder.qdq.emit.biases import with_corrected_biases
from engine_builder.qdq.onnxruntime_dialect import rewrite
from tests.model_text import model_from_text, run, samples_for
from tests.probed_models import Probed, assert_close, probed


def deep() -> onnx.ModelProto:
    """Every kind of bias location behind another: Conv, transposed Conv, a MatMul with an Add, a Gemm with factors; and a Conv without a
    bias.
    """
    return model_from_text(
        """g (float[N,3,8,8] x) => (float[N,4] y) {
            c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r1 = Relu(c1)
            c2 = Conv(r1, w2)
            up = ConvTranspose<strides=[2,2], group=2>(c2, w3, b3)
            pooled = GlobalAveragePool(up)
            flat = Flatten(pooled)
            m = MatMul(flat, w4)
            a = Add(m, b4)
            r2 = Relu(a)
            y = Gemm<transB=1, beta=2.0>(r2, w5, b5)
        }""",
        {
            **{"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 1, 1), "w3": (4, 3, 2, 2), "b3": (6,)},
            **{"w4": (6, 5), "b4": (5,), "w5": (4, 5), "b5": (4,)},
        },
    )


def case(scale: float = 1.0) -> Probed:
    feeds = samples_for(deep(), 24)
    return probed(deep(), {"x": np.asarray(np.abs(feeds["x"]) * scale, dtype=np.float32)})


def explicit(found: Probed, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every layer quantized, on ranges that clip a quarter of the values: the means shift."""
    ranges = {name: (low / 4, high / 4) for name, (low, high) in found.ranges.items()}
    return rewrite(model, found.layers, {layer.name: Precision.INT8 for layer in found.layers}, ranges, found.scheme)


def corrected(found: Probed, batch: int = 24) -> tuple[tuple[BiasLocation, ...], dict[str, NDArray[np.float32]]]:
    locations = bias_locations(found.model, found.layers)
    batches = [{"x": found.feeds["x"][i : i + batch]} for i in range(0, 24, batch)]
    return locations, corrections(explicit(found, found.model), locations, mean_outputs(found.model, locations, batches), batches)


def outputs_of(model: onnx.ModelProto, locations: tuple[BiasLocation, ...], feeds: Mapping[str, Array]) -> list[Array]:
    """Return what the layers of the bias locations put out, before any activation."""
    names = {node.name: node.output[0] for node in model.graph.node}
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=names[location.layer]) for location in locations)
    return run(tapped, feeds)


def mean(values: Array, axis: int) -> NDArray[np.float64]:
    return np.asarray(np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).mean(axis=0, dtype=np.float64))


def test_the_bias_locations_are_the_biases_that_cost_nothing_to_change() -> None:
    found = case()
    locations = bias_locations(found.model, found.layers)
    assert [(location.layer, location.axis) for location in locations] == [
        ("Conv_c1", 1),
        ("Conv_c2", 1),
        ("ConvTranspose_up", 1),
        ("MatMul_m", -1),
        ("Gemm_y", -1),
    ]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("g (float[N,4] x) => (float[N,4] y) { m = MatMul(x, w) y = Add(m, x) }", {"w": (4, 4)}),
        ("g (float[N,4,4] x) => (float[N,4,4] y) { m = MatMul(w, x) y = Add(m, b) }", {"w": (4, 4), "b": (4, 1)}),
        ("g (float[N,4] x) => (float[N,4] m, float[N,4] y) { m = MatMul(x, w) y = Add(m, b) }", {"w": (4, 4), "b": (4,)}),
        ("g (float[N,2,4] x) => (float[N,2,4] y) { m = MatMul(x, w) y = Add(m, b) }", {"w": (4, 4), "b": (2, 4)}),
    ],
)
def test_what_is_no_bias_of_this_layer_alone_is_no_bias_location(text: str, weights: Mapping[str, tuple[int, ...]]) -> None:
    model = model_from_text(text, weights)
    found = probed(model, samples_for(model, 4))
    assert bias_locations(found.model, found.layers) == ()


def test_mean_outputs_are_those_of_the_float_model() -> None:
    found = case()
    locations = bias_locations(found.model, found.layers)
    means = mean_outputs(found.model, locations, [found.feeds])
    for location, values in zip(locations, outputs_of(found.model, locations, found.feeds), strict=True):
        assert_close(means[location.layer], mean(values, location.axis))


def test_a_large_matrix_is_fed_to_both_passes() -> None:
    model = model_from_text(
        "g (float[N,300] x) => (float[N,4] y) { a = Gemm(x, w1, b1) r = Relu(a) y = Gemm(r, w2, b2) }",
        {"w1": (300, 300), "b1": (300,), "w2": (300, 4), "b2": (4,)},
    )
    found = probed(model, samples_for(model, 8))
    locations = bias_locations(found.model, found.layers)
    quantized = rewrite(found.model, found.layers, {found.layers[1].name: Precision.INT8}, found.ranges, found.scheme)
    means = mean_outputs(found.model, locations, [found.feeds])
    assert_close(means[locations[0].layer], mean(outputs_of(found.model, locations, found.feeds)[0], -1))
    assert corrections(quantized, locations[1:], means, [found.feeds]).keys() == {locations[1].layer}


def test_after_the_correction_every_layer_has_the_means_of_the_float_model() -> None:
    found = case()
    locations, shifts = corrected(found)
    quantized = explicit(found, with_corrected_biases(found.model, locations, shifts))
    before = outputs_of(explicit(found, found.model), locations, found.feeds)
    # The output of a MatMul comes before its bias, so the correction shows behind it.
    after = outputs_of(quantized, locations, found.feeds)
    for index, (location, plain) in enumerate(zip(locations, outputs_of(found.model, locations, found.feeds), strict=True)):
        target = mean(plain, location.axis)
        behind = shifts[location.layer] if location.layer == "MatMul_m" else np.float32(0)
        off = np.abs(mean(after[index], location.axis) + behind - target).max()
        assert (
            off < 0.02 * np.abs(mean(before[index], location.axis) - target).max()
        )  # the bias is rounded to int32 with the products' scale


def test_corrections_do_not_depend_on_how_samples_are_batched() -> None:
    found = case()
    whole, parts = corrected(found)[1], corrected(found, 8)[1]
    assert whole.keys() == parts.keys()
    for name, shift in whole.items():
        assert_close(parts[name], shift, atol=1e-3 * float(np.abs(shift).max()))  # sums in another order turn a few roundings


def test_two_passes_find_the_same_bits() -> None:
    found = case()
    first, second = corrected(found)[1], corrected(found)[1]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_model_that_is_corrected_is_left_as_it_is() -> None:
    found = case()
    before = found.model.SerializeToString()
    locations, shifts = corrected(found)
    assert with_corrected_biases(found.model, locations, {}).SerializeToString() == before
    assert with_corrected_biases(found.model, locations, shifts).SerializeToString() != before
    assert found.model.SerializeToString() == before


def test_values_that_are_not_finite_and_empty_batches_count_in_no_mean() -> None:
    model = model_from_text("g (float[N,4] x) => (float[N,3] y) { y = Gemm(x, w, b) }", {"w": (4, 3), "b": (3,)})
    found = probed(model, samples_for(model, 6))
    (location,) = bias_locations(found.model, found.layers)
    x = np.asarray(found.feeds["x"], dtype=np.float32)
    expected = mean_outputs(found.model, (location,), [{"x": x}])[location.layer]
    masked = np.concatenate([x, np.full((2, 4), np.nan, np.float32), np.full((1, 4), np.inf, np.float32)])
    for batches in ([masked], [x[:0], masked[:3], masked[3:]]):
        np.testing.assert_allclose(
            mean_outputs(found.model, (location,), [{"x": part} for part in batches])[location.layer], expected, rtol=1e-6
        )
    nothing = [{"x": x * np.float32(np.nan)}]
    assert np.isnan(mean_outputs(found.model, (location,), nothing)[location.layer]).all()
    shift = corrections(found.model, (location,), {location.layer: expected}, nothing)[location.layer]
    np.testing.assert_array_equal(shift, 0.0)  # there is nothing to move


class _Allocated(ctypes.Structure):
    """What glibc's ``mallinfo2`` gives."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc since 2.33 tells what is allocated")
def test_nothing_of_what_activations_took_is_kept() -> None:
    text = """g (float[N,3,256,256] x) => (float[N,4,128,128] y) {
        a = Conv<pads=[1,1,1,1],strides=[2,2]>(x, w1, b1)
        b = Relu(a)
        y = Conv(b, w2, b2)
    }"""
    pictures = np.ones((1, 3, 256, 256), np.float32)
    network = probed(model_from_text(text, {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (4, 16, 1, 1), "b2": (4,)}), {"x": pictures})
    locations = bias_locations(network.model, network.layers)
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Allocated

    def allocated_after(samples: int) -> int:
        feeds = [{"x": pictures} for _ in range(samples)]
        means = {location.layer: np.zeros(16 if location is locations[0] else 4) for location in locations}
        corrections(network.model, locations, means, feeds)
        del feeds
        gc.collect()
        found = mallinfo2()
        return int(found.uordblks + found.hblkhd)

    first = allocated_after(1)  # what is loaded late is loaded
    assert allocated_after(8) - first < 2 << 20  # the first layer gives 1 MB of each sample
