"""Grids of blocks: how far they move values, what a row's neighbours do to it, and the smaller steps at 4 bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from hypothesis.extra.numpy import arrays as arrays_of
from numpy.typing import NDArray

from calibration.execution.partition import Graph
from calibration.graph.layers import find_layers
from calibration.number_formats.block_grids import block_steps, fake_quantize_in_blocks
from calibration.number_formats.block_rounding import rounding_in_blocks
from calibration.number_formats.precision import Precision
from tests.model_text import model_from_text, run

INT8, INT4 = Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS
Floats = NDArray[np.float32]
values = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
matrices = arrays_of(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=300), elements=values, fill=st.just(0.5))


def rounded(weight: Floats, axis: int, precision: Precision) -> Floats:
    step = np.repeat(block_steps(weight, axis, precision), 128, axis=axis)
    step = np.take(step, np.arange(weight.shape[axis]), axis=axis)
    return np.asarray(np.clip(np.round(weight / step), precision.grid.bottom, precision.grid.top) * step, dtype=np.float32)


@given(matrices, st.sampled_from([0, 1]))
def test_eight_bits_move_a_weight_by_at_most_half_a_step_of_its_block(weight: Floats, axis: int) -> None:
    peak = float(np.abs(weight).max())
    assert float(np.abs(rounded(weight, axis, INT8) - weight).max()) <= peak / 254 * (1 + 1e-5) + 1e-8


@given(matrices, st.sampled_from([0, 1]), st.sampled_from([INT8, INT4]))
def test_steps_are_one_for_each_block_and_never_zero(weight: Floats, axis: int, precision: Precision) -> None:
    steps = block_steps(weight, axis, precision)
    assert steps.shape[axis] == -(-weight.shape[axis] // 128)
    assert steps.shape[1 - axis] == weight.shape[1 - axis]
    assert np.all(steps != 0)


def test_the_value_of_largest_magnitude_gets_the_lowest_of_sixteen_levels_whatever_its_sign() -> None:
    for sign in (1.0, -1.0):
        weight = np.full((128, 1), sign * 0.125, np.float32)
        weight[5] = sign
        steps = block_steps(weight, 0, INT4)
        assert np.sign(steps[0, 0]) == -sign
        np.testing.assert_allclose(steps, -sign / 8)  # eighths and one are on that grid: nothing to clip
        np.testing.assert_array_equal(rounded(weight, 0, INT4), weight)


def test_one_large_weight_is_clipped_where_that_loses_less() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(128, 64)).astype(np.float32)
    peak = np.abs(weight).max(axis=0)
    assert np.mean(np.abs(block_steps(weight, 0, INT4)[0]) < peak / 8 * 0.99) > 0.5
    plain = np.clip(np.round(weight / (peak / 7)), -7, 7) * (peak / 7)
    errors = [float(((one - weight) ** 2).sum()) for one in (rounded(weight, 0, INT4), plain)]
    assert errors[0] < 0.8 * errors[1]  # of 15 levels from end to end: 16 levels, and the best of six steps


def test_transposed_weights_have_the_same_steps() -> None:
    weight = np.random.default_rng(1).normal(size=(200, 7)).astype(np.float32)
    for precision in (INT8, INT4):
        np.testing.assert_array_equal(block_steps(weight, 0, precision).T, block_steps(np.ascontiguousarray(weight.T), 1, precision))


@given(arrays_of(np.float32, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=40), elements=values), st.sampled_from([4, 16, 32]))
def test_inputs_move_by_at_most_half_a_step_of_their_block(x: Floats, block: int) -> None:
    found = fake_quantize_in_blocks(x, block)
    assert found.shape == x.shape
    for start in range(0, x.shape[-1], block):
        part, moved = x[..., start : start + block], found[..., start : start + block]
        peak = np.abs(part).max(axis=-1, keepdims=True, initial=0.0)
        assert np.all(np.abs(moved - part) <= peak / 254 * (1 + 1e-5))


def test_no_row_depends_on_another() -> None:
    x = np.random.default_rng(2).normal(size=(3, 50)).astype(np.float32)
    other = x.copy()
    other[1:] *= 1000
    np.testing.assert_array_equal(fake_quantize_in_blocks(other, 32)[0], fake_quantize_in_blocks(x, 32)[0])


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("length", [100, 128, 300])
@pytest.mark.parametrize("rows", [(0,), (3,), (2, 3)])
def test_standard_operators_round_as_the_formula_says(opset: int, length: int, rows: tuple[int, ...]) -> None:
    rank = "".join(f"{name}," for name in "NTS"[: len(rows)])
    text = f"g (float[{rank}{length}] x) => (float[{rank}2] y) {{ y = MatMul(x, w) }}"
    model = model_from_text(text, {"w": (length, 2)}, opset=opset, ir_version=8)
    (layer,) = find_layers(model)
    constants: dict[str, onnx.TensorProto] = {}
    nodes = rounding_in_blocks(Graph(model, [layer]), layer, "x", "rounded", INT8, constants)
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants.values())
    model.graph.output.append(onnx.helper.make_tensor_value_info("rounded", onnx.TensorProto.FLOAT, None))
    x = np.random.default_rng(3).normal(size=(*rows, length)).astype(np.float32)
    x[..., :64] *= np.exp(np.random.default_rng(4).normal(size=(*rows, 1))).astype(np.float32)
    if rows == (3,):
        x[0, :128] = 0.0

    [found] = run(model, {"x": x})

    np.testing.assert_allclose(found, fake_quantize_in_blocks(x, 128), rtol=1e-6, atol=1e-7)
