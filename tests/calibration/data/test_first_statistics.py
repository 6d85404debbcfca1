"""The samples against what the first BatchNormalization saw in training."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from calibration.data.first_statistics import FirstStatistics, first_statistics
from tests.model_text import model_from_text, run

PIXELS = np.random.default_rng(11).integers(0, 256, (48, 3, 8, 8)).astype(np.float32)
PREPARED = ((PIXELS / 255 - 0.5) / 0.25).astype(np.float32)
STEM = "c = Conv<pads=[1,1,1,1]>(x, w)"
TWO_LAYERS = "d = Conv<pads=[1,1,1,1]>(x, w) c = Conv<pads=[1,1,1,1]>(d, w2)"


def trained(before: str = STEM, *, batch: str = "N", untrained: bool = False) -> onnx.ModelProto:
    """Return a network whose BatchNormalization saw PREPARED."""
    weights = {"w": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (2, 4, 3, 3)}
    read = "c" if before else "x"
    channels = 4 if before else 3
    text = f"""g (float[{batch},3,8,8] x) => (float[{batch},2,8,8] y) {{
        {before}
        n = BatchNormalization<epsilon=0.001>({read}, gamma, beta, mean, variance)
        r = Relu(n)
        y = Conv<pads=[1,1,1,1]>(r, {"w3" if before else "w4"})
    }}"""
    model = model_from_text(text, {**weights, "w4": (2, 3, 3, 3)})
    seen = PREPARED if not before else run(cut_at(model, "c"), {"x": PREPARED[:1] if batch == "1" else PREPARED})[0]
    mean, variance = seen.mean(axis=(0, 2, 3)), seen.var(axis=(0, 2, 3))
    constants = {"gamma": np.ones(channels), "beta": np.zeros(channels), "mean": mean, "variance": variance}
    if untrained:
        constants |= {"mean": np.zeros(channels), "variance": np.ones(channels)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items())
    return model


def cut_at(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    index = next(index for index, node in enumerate(cut.graph.node) if name in node.output)
    del cut.graph.node[index + 1 :], cut.graph.output[:]
    cut.graph.output.append(onnx.ValueInfoProto(name=name))
    return cut


def statistics(model: onnx.ModelProto, x: NDArray[np.generic], batch: int | None = None) -> FirstStatistics | None:
    return first_statistics(model, {"x": x}, batch)


@pytest.mark.parametrize("before", [STEM, ""])
def test_samples_prepared_as_for_training_are_near(before: str) -> None:
    found = statistics(trained(before), PREPARED)
    assert found is not None
    assert not found.is_far
    assert found.spread == pytest.approx(1.0, abs=0.01)  # but for epsilon in the running deviation


@pytest.mark.parametrize("before", [STEM, ""])
def test_raw_pixels_are_far(before: str) -> None:
    found = statistics(trained(before), PIXELS)
    assert found is not None
    assert found.is_far
    assert found.spread > 0.9 * 255 * 0.25  # the padding of a convolution adds to it: zeros are far below the mean of raw pixels


def test_pixels_that_were_divided_twice_are_far() -> None:
    found = statistics(trained(), PREPARED / 255)
    assert found is not None
    assert found.is_far


def test_a_fixed_batch_is_kept() -> None:
    found = statistics(trained(batch="1"), PREPARED, 1)
    assert found is not None
    assert not found.is_far


def test_statistics_that_nobody_trained_count_only_beyond_all_reason() -> None:
    model = trained(untrained=True)
    near, far = statistics(model, PREPARED * 5), statistics(model, PIXELS)
    assert near is not None
    assert near.spread > 2.5
    assert not near.is_far
    assert far is not None
    assert far.is_far


def test_statistics_in_constant_nodes_are_read() -> None:
    model = trained()
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in ("mean", "variance")]
    for tensor in model.graph.initializer:
        if tensor not in kept:
            model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    found = statistics(model, PIXELS)
    assert found is not None
    assert found.is_far


def test_a_deeper_one_says_nothing_about_the_input() -> None:
    assert statistics(trained(TWO_LAYERS), PIXELS) is None


def test_without_any_there_is_nothing_to_compare() -> None:
    model = model_from_text("g (float[N,6] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": (6, 3)})
    assert statistics(model, np.ones((4, 6), np.float32)) is None
