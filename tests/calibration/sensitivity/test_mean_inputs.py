"""The shift of means that a change of a weight makes, without running the layer on all samples."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.algorithms.bias_correction import bias_locations
from calibration.sensitivity.means.mean_inputs import MeanInputs
from calibration.sensitivity.perturbed_model import Probe
from tests.calibration.sensitivity.test_output_shifts import case
from tests.model_text import Array, model_from_text, samples_for
from tests.probed_models import Probed, probe_of, probed
from tests.traced_memory import peak_bytes


def channel_means(values: Array, axis: int) -> Array:
    return np.asarray(np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).mean(axis=0, dtype=np.float64))


def means_of(found: Probed, batch: int) -> MeanInputs:
    batches = [{"x": found.feeds["x"][i : i + batch]} for i in range(0, len(found.feeds["x"]), batch)]
    return MeanInputs(found.reference(), bias_locations(found.model, found.layers), batches)


def before_activations(found: Probed, name: str, weight: Array) -> Array:
    """Return what a layer that nothing follows puts out with another weight."""
    probe: Probe = probe_of(found.reference(), found.feeds, found.layer(name))
    return probe.output(weight=weight)


def test_the_shift_takes_the_means_back_whatever_the_batches() -> None:
    """Of layers without an activation behind them, where the output shows it."""
    found = case()
    for name in ("MatMul_m", "Gemm_y"):
        layer = found.layer(name)
        weight = found.reference().weight(layer)
        change = 0.1 * np.random.default_rng(0).normal(size=weight.shape).astype(np.float32)
        expected = channel_means(before_activations(found, name, weight), -1) - channel_means(
            before_activations(found, name, weight + change), -1
        )
        for batch in (24, 5):
            shift = means_of(found, batch).shift(layer, change)
            assert shift is not None
            np.testing.assert_allclose(shift, expected, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    "attributes",
    [
        "pads=[1,1,1,1]",
        "pads=[0,2,1,0], strides=[2,1], dilations=[1,2]",
        "pads=[1,1,1,1], strides=[3,3], group=2",
        'auto_pad="SAME_UPPER", strides=[2,2]',  # whose pads only the runtime knows
    ],
)
def test_each_place_of_a_kernel_counts_what_lies_under_it_borders_too(attributes: str) -> None:
    groups = 2 if "group" in attributes else 1
    text = f"g (float[N,4,7,6] x) => (float[N,4,H,W] y) {{ y = Conv<{attributes}>(x, w, b) }}"
    model = model_from_text(text, {"w": (4, 4 // groups, 3, 3), "b": (4,)})
    found = probed(model, {"x": 1.0 + samples_for(model, 12)["x"]})
    (layer,) = found.layers
    weight = found.reference().weight(layer)
    change = 0.1 * np.random.default_rng(1).normal(size=weight.shape).astype(np.float32)
    probe = probe_of(found.reference(), found.feeds, layer)
    shift = means_of(found, 5).shift(layer, change)
    assert shift is not None
    moved = probe.output(weight=weight + change, shift=shift)
    assert np.abs(channel_means(moved, 1) - channel_means(probe.output(), 1)).max() < 1e-5
    assert np.abs(channel_means(probe.output(weight=weight + change), 1) - channel_means(probe.output(), 1)).max() > 0.01


def test_means_of_large_pictures_are_not_kept_whole() -> None:
    convolutions = " ".join(f"a{index + 1} = Conv<pads=[1,1,1,1]>(a{index}, w{index}, b{index})" for index in range(12))
    text = f"g (float[N,8,128,128] x) => (float[N,8,128,128] y) {{ a0 = Relu(x) {convolutions} y = Relu(a12) }}"
    shapes = {f"w{index}": (8, 8, 3, 3) for index in range(12)} | {f"b{index}": (8,) for index in range(12)}
    found = probed(model_from_text(text, shapes), {"x": np.ones((1, 8, 128, 128), np.float32)})
    reference = found.reference()
    locations = bias_locations(found.model, found.layers)
    picture = 8 * 128 * 128 * 8  # bytes in float64, of which twelve were kept, and half of each in float32
    assert peak_bytes(lambda: MeanInputs(reference, locations, [found.feeds])) < 6 * picture


def test_a_layer_without_a_bias_has_no_shift() -> None:
    """A product that no sum follows: a bias of its own would cost the runtime a node."""
    model = model_from_text("g (float[N,4] x) => (float[N,3] y) { m = MatMul(x, w) y = Relu(m) }", {"w": (4, 3)})
    found = probed(model, samples_for(model, 24))
    (layer,) = found.layers
    assert layer.bias is None
    assert means_of(found, 24).shift(layer, np.zeros((4, 3), np.float32)) is None


def test_of_a_gemm_that_turns_its_input_the_mean_is_over_its_last_axis() -> None:
    text = "g (float[N,4] x) => (float[N,3] y) { h = Gemm(x, a, b) t = Transpose<perm=[1,0]>(h) y = Gemm<transA=1>(t, w, c) }"
    model = model_from_text(text, {"a": (4, 4), "b": (4,), "w": (4, 3), "c": (3,)})
    found = probed(model, samples_for(model, 24))
    layer = found.layers[-1]
    weight = found.reference().weight(layer)
    change = 0.1 * np.random.default_rng(0).normal(size=weight.shape).astype(np.float32)
    expected = channel_means(before_activations(found, layer.name, weight), -1) - channel_means(
        before_activations(found, layer.name, weight + change), -1
    )
    shift = means_of(found, 24).shift(layer, change)
    assert shift is not None
    np.testing.assert_allclose(shift, expected, atol=1e-4 * float(np.abs(expected).max()))
