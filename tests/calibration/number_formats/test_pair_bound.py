"""The pair bound against its own promise: no pair of products that a kernel adds in 16 bits saturates, whatever the weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from calibration.algorithms.gptq import InverseFactor
from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.pair_bound import PAIR_LIMIT, adds_pairs, keeps_pair_bound, kernel_rows, pair_bound_scale, partners
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision, Scheme
from calibration.number_formats.weight_scales import weight_step

BOUND = Scheme(symmetric_activations=False, quantized_outputs=ONNXRUNTIME_CPU_SCHEME.quantized_outputs, bounds_pairs=True)
FORMS = {  # shape of the weight, axis of its channels, groups
    "MatMul": ("MatMul", (7, 5), 1, 1),
    "MatMul of a stack": ("MatMul", (2, 6, 5), 2, 1),
    "MatMul of a vector": ("MatMul", (9,), None, 1),
    "Gemm": ("Gemm", (8, 3), 1, 1),
    "Gemm transposed": ("Gemm", (3, 8), 0, 1),
    "Conv": ("Conv", (4, 3, 3, 3), 0, 1),
    "Conv of one axis": ("Conv", (4, 5, 3), 0, 1),
    "Conv in groups": ("Conv", (6, 2, 3, 3), 0, 3),
    "Conv with two outputs a channel": ("Conv", (6, 1, 3, 3), 0, 3),
}


def layer(op_type: str, axis: int | None, groups: int = 1, kind: LayerKind = LayerKind.WEIGHTED) -> Layer:
    return Layer("l", op_type, kind, ("x",), "w", axis, None, "y", ("l",), macs=1, weight_count=1, groups=groups)


def levels_of(weight: NDArray[np.float32], one: Layer) -> NDArray[np.int8]:
    step = weight_step(weight, one, Precision.INT8, BOUND)
    return np.clip(np.round(weight / step), -127, 127).astype(np.int8)


def largest_pair(levels: NDArray[np.int8], one: Layer) -> int:
    """Return the largest |a + b| of two neighbours, computed one by one: 255 of each is what a kernel may add up."""
    rows = kernel_rows(levels, one).astype(int)
    return max((abs(int(row[i]) + int(row[i + 1])) for row in rows for i in range(0, row.size - 1, 2)), default=0)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_no_pair_of_levels_exceeds_the_limit(form: str, data: st.DataObject) -> None:
    op_type, shape, axis, groups = FORMS[form]
    numbers = st.floats(-8, 8, width=32, allow_subnormal=False)
    weight = data.draw(arrays(np.float32, shape, elements=numbers))
    one = layer(op_type, axis, groups)
    levels = levels_of(weight, one)
    assert largest_pair(levels, one) <= PAIR_LIMIT
    assert keeps_pair_bound(levels, one)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_levels_keep_the_bound_exactly_where_no_pair_of_them_exceeds_the_limit(form: str, data: st.DataObject) -> None:
    op_type, shape, axis, groups = FORMS[form]
    near = st.sampled_from([-128, -127, -65, -64, -63, -1, 0, 1, 63, 64, 65, 127])
    levels = data.draw(arrays(np.int8, shape, elements=near))
    one = layer(op_type, axis, groups)
    assert keeps_pair_bound(levels, one) is (not adds_pairs(one, shape) or largest_pair(levels, one) <= PAIR_LIMIT)


def test_halves_are_never_rounded_past_the_limit() -> None:
    one = layer("Gemm", 0)
    halves = np.arange(0.5, 128.0, 0.5, dtype=np.float32)
    weight = np.stack([halves, np.float32(128.0) - halves], axis=1)  # each pair adds up to the limit at a step of one
    assert largest_pair(levels_of(weight, one), one) <= PAIR_LIMIT


def test_weights_whose_neighbours_have_opposite_signs_keep_the_full_range() -> None:
    weight = np.tile(np.array([1.0, -1.0], np.float32), (3, 4))
    assert np.abs(levels_of(weight, layer("Gemm", 0))).min() == 127


def test_the_scale_is_raised_no_further_than_the_largest_pair_needs() -> None:
    weight = np.array([[1.0, 0.5, 0.25, 0.0]], np.float32)
    scale = pair_bound_scale(weight, layer("Gemm", 0))
    assert scale.shape == (1, 1)
    assert scale[0, 0] == pytest.approx(1.5 / PAIR_LIMIT, rel=2e-6)  # a margin of 2^-20 for float32 division


@pytest.mark.parametrize(
    ("one", "shape", "expected"),
    [
        (layer("Conv", 0, groups=4), (4, 1, 3, 3), False),  # depthwise
        (layer("Conv", 0, groups=4), (8, 1, 3, 3), True),
        (layer("Conv", 0), (8, 1, 3, 3), True),  # one channel of input, not a group for each
        (layer("ConvTranspose", 1), (4, 4, 3, 3), False),
        (layer("MatMul", 0), (4, 6), False),  # the weight on the left
        (layer("MatMul", 1), (6, 4), True),
        (layer("Gemm", 0), (4, 6), True),
        (layer("Add", None, kind=LayerKind.RESIDUAL_ADD), (1,), False),
    ],
)
def test_which_layers_add_pairs(one: Layer, shape: tuple[int, ...], *, expected: bool) -> None:
    assert adds_pairs(one, shape) is expected


def test_layers_that_never_add_pairs_keep_the_full_range() -> None:
    weight = np.ones((4, 1, 3, 3), np.float32)
    assert np.abs(levels_of(weight, layer("Conv", 0, groups=4))).min() == 127
    assert np.abs(levels_of(weight, layer("Conv", 0))).max() == 64


@pytest.mark.parametrize("form", ["MatMul", "Gemm", "Gemm transposed", "Conv", "Conv of one axis", "Conv in groups"])
def test_partners_are_the_neighbours_of_the_kernels_order(form: str) -> None:
    op_type, shape, axis, groups = FORMS[form]
    one = layer(op_type, axis, groups)
    terms = int(np.prod(shape)) // (shape[axis] if axis is not None else 1)
    numbered = np.arange(terms).reshape(tuple(size for index, size in enumerate(shape) if index != axis))
    row = kernel_rows(np.broadcast_to(np.expand_dims(numbered, axis or 0), shape), one)[0].astype(int)
    found = partners(one, shape)
    for i in range(0, terms - 1, 2):
        assert (found[row[i]], found[row[i + 1]]) == (row[i + 1], row[i])
    assert np.count_nonzero(found < 0) == terms % 2


def test_gptq_keeps_the_bound() -> None:
    rng = np.random.default_rng(0)
    one = layer("MatMul", 1)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 17)) + 0.01 * rng.normal(size=(500, 17))
    weight = np.abs(rng.normal(size=(17, 40))).astype(np.float32)
    step = np.broadcast_to(weight_step(weight, one, Precision.INT8, BOUND), weight.shape)
    free = InverseFactor(x.T @ x / len(x)).levels(weight, step, (-127, 127))
    kept = InverseFactor(x.T @ x / len(x)).levels(weight, step, (-127, 127), partners(one, weight.shape))
    assert not keeps_pair_bound(free, one)  # errors that are spread on to a partner lift it: else this test shows nothing
    assert keeps_pair_bound(kept, one)
    nearest = np.clip(np.round(weight / step), -127, 127)
    errors = [np.mean((x @ (weight - levels * step)) ** 2) for levels in (kept, nearest)]
    assert errors[0] < errors[1]
