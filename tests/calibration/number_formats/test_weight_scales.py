"""Steps of integer weights: by output channel, and in blocks for the INT4 weights of products."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, TENSORRT_SCHEME, Precision, Scheme
from calibration.number_formats.weight_scales import weight_step


def layer(op_type: str, weight_axis: int) -> Layer:
    return Layer("l", op_type, LayerKind.WEIGHTED, ("x",), "w", weight_axis, None, "y", ("l",), macs=1, weight_count=1)


def test_an_int4_matrix_has_a_step_for_each_block_along_the_summed_axis() -> None:
    weight = np.ones((64, 3), np.float32)
    weight[32:] *= 2
    step = weight_step(weight, layer("MatMul", 1), Precision.INT4, TENSORRT_SCHEME)
    assert step.shape == weight.shape
    np.testing.assert_allclose(step[[0, 31, 32, 63], 0], np.array([1, 1, 2, 2]) / 7, rtol=1e-6)  # float32 division


@pytest.mark.parametrize(("op_type", "axis"), [("Conv", 0), ("ConvTranspose", 1)])
@pytest.mark.parametrize("scheme", [TENSORRT_SCHEME, ONNXRUNTIME_CPU_SCHEME])
def test_the_int4_weight_of_a_one_dimensional_convolution_is_no_stack_of_matrices(op_type: str, axis: int, scheme: Scheme) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 4, 5)).astype(np.float32)
    step = weight_step(weight, layer(op_type, axis), Precision.INT4, scheme)
    assert step.shape == tuple(size if index == axis else 1 for index, size in enumerate(weight.shape))
