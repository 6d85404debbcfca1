from __future__ import annotations

import pickle

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from calibration.number_formats.grids import (
    E4M3,
    activation_grid,
    block_scale,
    dynamic_grid,
    fake_quantize_activation,
    fake_quantize_dynamically,
    fake_quantize_weight,
    scale_of_largest,
    weight_scale,
)
from calibration.number_formats.precision import Precision
from tests.model_text import model_from_text, run

numbers = st.floats(-1e4, 1e4, width=32)
arrays = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=6), elements=numbers)
weights = hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=numbers)
ranges = st.tuples(numbers, numbers).map(sorted)
bit_widths = st.sampled_from([4, 8])


@given(arrays, bit_widths, st.booleans())
def test_activation_in_range_moves_by_at_most_half_a_step(x: NDArray[np.float32], bits: int, symmetric: bool) -> None:
    low, high = float(x.min()), float(x.max())
    scale, *_ = activation_grid(low, high, bits=bits, symmetric=symmetric)

    error = np.abs(x - fake_quantize_activation(x, low, high, bits=bits, symmetric=symmetric))

    # A zero point is rounded too, which moves the ends of the grid by half a step more; float32 adds its own rounding.
    allowed = 0.5 if symmetric else 1.0
    assert float(error.max()) <= allowed * scale + 1e-6 * max(abs(low), abs(high), 1e-6)


@given(arrays, ranges, bit_widths, st.booleans())
def test_quantizing_twice_changes_nothing_more(x: NDArray[np.float32], limits: list[float], bits: int, symmetric: bool) -> None:
    once = fake_quantize_activation(x, *limits, bits=bits, symmetric=symmetric)

    np.testing.assert_array_equal(fake_quantize_activation(once, *limits, bits=bits, symmetric=symmetric), once)


@given(arrays, ranges, bit_widths, st.booleans())
def test_quantized_activation_takes_no_more_values_than_the_bits_allow(
    x: NDArray[np.float32], limits: list[float], bits: int, symmetric: bool
) -> None:
    result = fake_quantize_activation(x, *limits, bits=bits, symmetric=symmetric)

    assert result.dtype == np.float32
    assert result.shape == x.shape
    assert len(np.unique(result)) <= 2**bits


@given(ranges, bit_widths, st.booleans())
def test_zero_is_exact(limits: list[float], bits: int, symmetric: bool) -> None:
    zero = np.zeros((1,), np.float32)

    assert fake_quantize_activation(zero, *limits, bits=bits, symmetric=symmetric) == 0


@given(weights, bit_widths, st.sampled_from([0, 1, None]))
def test_weight_moves_by_at_most_half_a_step_of_its_channel(weight: NDArray[np.float32], bits: int, axis: int | None) -> None:
    error = np.abs(weight - fake_quantize_weight(weight, axis, bits=bits))

    # float32 rounding of quotient and product beside the half step
    assert np.all(error <= 0.5 * weight_scale(weight, axis, bits=bits) + 1e-6 * np.abs(weight))


@given(weights, st.sampled_from([0, 1, None]))
def test_weight_scale_has_one_value_a_channel(weight: NDArray[np.float32], axis: int | None) -> None:
    scale = weight_scale(weight, axis, bits=8)

    assert scale.ndim == weight.ndim
    assert scale.size == (1 if axis is None else weight.shape[axis])
    assert np.all(scale > 0)


@pytest.mark.parametrize(("kind", "symmetric"), [("uint8", False), ("int8", True)])
def test_activation_equals_the_operators_of_onnx(kind: str, symmetric: bool) -> None:
    x = np.random.default_rng(3).normal(size=(4, 50)).astype(np.float32)
    scale, zero, *_ = activation_grid(-1.5, 2.0, bits=8, symmetric=symmetric)
    interface = f"g (float[N,50] x, {kind} zero, float scale) => (float[N,50] y)"
    model = model_from_text(interface + "{ q = QuantizeLinear(x, scale, zero) y = DequantizeLinear(q, scale, zero) }")
    onnx.checker.check_model(model)

    [expected] = run(model, {"x": x, "scale": np.asarray(scale), "zero": np.asarray(zero, kind)})

    np.testing.assert_array_equal(fake_quantize_activation(x, -1.5, 2.0, bits=8, symmetric=symmetric), expected)


def test_channel_of_zeros_stays_zero() -> None:
    weight = np.array([[0, 0], [1, -2]], np.float32)

    result = fake_quantize_weight(weight, 0, bits=8)

    np.testing.assert_array_equal(result[0], 0)


def test_bits_of_each_precision() -> None:
    assert {precision.value: precision.bits for precision in Precision} == {
        "fp32": 32,
        "fp16": 16,
        "bf16": 16,
        "int8": 8,
        "int8_dynamic": 8,
        "int8_weights": 8,
        "int4_weights": 4,
        "fp8": 8,
        "int4": 4,
    }


@given(arrays)
def test_fp8_moves_a_value_by_at_most_a_sixteenth_of_it(x: NDArray[np.float32]) -> None:
    low, high = float(x.min()), float(x.max())

    error = np.abs(x - E4M3.round_activation(x, low, high, symmetric=True))

    # Four significant bits; below 2^-6 the steps are 2^-9, in units of the scale; float32 adds its own rounding.
    assert np.all(error <= np.abs(x) / 16 + 2.0**-10 * scale_of_largest(low, high, E4M3.top) + 1e-6 * np.abs(x))


def test_fp8_equals_the_operators_of_onnx_and_saturates() -> None:
    x = np.random.default_rng(3).normal(size=(4, 50)).astype(np.float32) * 3
    text = "g (float[N,50] x, float8e4m3fn zero, float scale) => (float[N,50] y)"
    model = model_from_text(text + "{ q = QuantizeLinear(x, scale, zero) y = DequantizeLinear(q, scale, zero) }", opset=19, ir_version=9)
    del model.graph.input[1:]
    model.graph.initializer.append(onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(scale_of_largest(-1.5, 2.0, E4M3.top)), "scale"))
    onnx.checker.check_model(model)

    [expected] = run(model, {"x": x})

    np.testing.assert_array_equal(E4M3.round_activation(x, -1.5, 2.0, symmetric=True), expected)
    assert np.abs(expected).max() == np.float32(2.0)


@pytest.mark.parametrize("axis", [0, 1])
def test_int4_blocks_equal_the_operator_of_onnx(axis: int) -> None:
    weight = np.random.default_rng(5).normal(size=(64, 64)).astype(np.float32)
    scale = block_scale(weight, axis, block=32, bits=4)
    steps = np.clip(np.round(weight / np.repeat(scale, 32, axis=axis)), -7, 7).astype(np.int8)
    text = f"g (float[64,64] zero) => (float[64,64] y) {{ w = DequantizeLinear<axis={axis}, block_size=32>(q, s) y = Add(w, zero) }}"
    model = model_from_text(text, opset=21, ir_version=10)
    model.graph.initializer.append(onnx.helper.make_tensor("q", onnx.TensorProto.INT4, steps.shape, steps.ravel()))
    model.graph.initializer.append(onnx.numpy_helper.from_array(scale, "s"))
    onnx.checker.check_model(model)

    [expected] = run(model, {"zero": np.zeros((64, 64), np.float32)})

    np.testing.assert_array_equal(steps * np.repeat(scale, 32, axis=axis), expected)


@given(weights, st.integers(1, 6))
def test_every_weight_is_within_the_seven_steps_of_its_block(weight: NDArray[np.float32], block: int) -> None:
    scale = np.repeat(block_scale(weight, 1, block=block, bits=4), block, axis=1)[:, : weight.shape[1]]

    assert np.all(np.abs(weight) <= 7.5 * scale)
    assert np.all(scale <= np.abs(weight).max(axis=1, keepdims=True) / 7 + 1e-6)  # no larger than that of the whole row


@pytest.mark.parametrize(("precision", "bits"), [(Precision.FP16, 11), (Precision.BF16, 8)])
def test_half_precisions_keep_their_significant_bits(precision: Precision, bits: int) -> None:
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)

    error = np.abs(x - precision.grid.round_weight(x)) / np.abs(x)

    assert 2.0 ** -(bits + 1) < error.max() <= 2.0**-bits
    np.testing.assert_array_equal(Precision.FP32.grid.round_weight(x), x)


def test_fp16_ends_at_65504_and_bf16_does_not() -> None:
    x = np.array([65504.0, 1e5], np.float32)

    assert np.isinf(Precision.FP16.grid.round_weight(x)).tolist() == [False, True]
    assert np.isfinite(Precision.BF16.grid.round_weight(x)).all()


def test_a_word_that_names_no_row_is_no_format() -> None:
    with pytest.raises(ValueError, match="int5"):
        Precision("int5")


def test_every_format_survives_pickle_and_a_look_up_by_name() -> None:
    assert [pickle.loads(pickle.dumps(precision)) for precision in Precision] == [Precision(row.value) for row in Precision]


def test_what_is_stored_is_what_the_element_type_says() -> None:
    for precision in Precision:
        assert onnx.helper.tensor_dtype_to_np_dtype(precision.element_type) == precision.grid.storage, precision


def test_a_float_type_has_no_scale() -> None:
    with pytest.raises(TypeError, match="float16"):
        Precision.FP16.grid.activation(0.0, 1.0, symmetric=True)


def test_a_gpu_has_what_its_compute_capability_says_and_an_unknown_one_everything() -> None:
    of_gpus = [precision for precision in Precision if not precision.rounds_in_kernel]
    assert [precision for precision in of_gpus if not precision.runs_on((7, 5))] == [Precision.BF16, Precision.FP8]
    assert all(precision.runs_on((8, 9)) and precision.runs_on(None) for precision in of_gpus)


@given(arrays.filter(lambda x: not 0 < np.abs(x).max(initial=0.0) < 1e-30))  # the operator's scale of less is 0 or not exact
def test_dynamic_rounding_is_that_of_the_operator_bit_for_bit(x: NDArray[np.float32]) -> None:
    model = model_from_text("""g (float[N] x) => (float[N] y, float scale, uint8 zero_point) {
        levels, scale, zero_point = DynamicQuantizeLinear(x)
        y = DequantizeLinear(levels, scale, zero_point)
    }""")
    y, scale, zero_point = run(model, {"x": x.reshape(-1)})

    found = dynamic_grid(x)
    assert (float(found[0]), int(found[1])) == (float(scale), int(zero_point))
    np.testing.assert_array_equal(fake_quantize_dynamically(x).reshape(-1), y)


def test_a_dynamic_format_multiplies_integers_and_stores_none_between_layers() -> None:
    dynamic = Precision.INT8_DYNAMIC
    assert dynamic.is_dynamic
    assert dynamic.multiplies_integers
    assert not dynamic.rounds_inputs
    assert not dynamic.is_weight_only
    assert not dynamic.takes_smooth_quant
    assert not dynamic.runs_on((9, 0))
    assert [one for one in Precision if one.is_dynamic] == [dynamic]
