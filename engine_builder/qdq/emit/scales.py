"""Integer grids of activations, weights and biases, exactly those of ``calibration.number_formats.grids``.

An activation has one (scale, zero point); a weight one scale per output channel and zero point 0; a bias is int32 with scale s_x * s_w,
which is the scale of the products that it is added to, so an integer kernel adds it to its accumulators as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.precision import Precision, Scheme
from engine_builder.errors import BuildError

_INT32_MAX = 2**31 - 1
_HEADROOM = 1.0001  # a bias that just fits must still fit after float32 rounding of its scale


@dataclass(frozen=True, slots=True, eq=False)
class ActivationScale:
    """The grid of one tensor: ``scale`` and ``zero_point`` are 0-d arrays; the zero point's dtype is the integer type (uint8 or int8)."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """Integer values of a weight: ``values`` has the weight's shape, int8; ``scale`` is (channels,) or 0-d, float32."""

    values: NDArray[np.int8]
    scale: NDArray[np.float32]


def activation_scale(tensor: str, ranges: Mapping[str, tuple[float, float]], scheme: Scheme) -> ActivationScale:
    """Return the 8-bit integer grid of ``tensor``.

    Raises:
        BuildError: See ``measured_range``.
    """
    low, high = measured_range(tensor, ranges)
    scale, zero_point = Precision.INT8.grid.activation(low, high, symmetric=scheme.symmetric_activations)
    return ActivationScale(np.asarray(scale, dtype=np.float32), zero_point)


def measured_range(tensor: str, ranges: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Return the lowest and the highest value of ``tensor``.

    Raises:
        BuildError: The tensor has no range, or one that is not finite.
    """
    if tensor not in ranges:
        raise BuildError(
            f"tensor {tensor!r}: no range was measured, but a quantized layer reads or writes it",
            fix="measure the ranges of this very model",
        )
    low, high = ranges[tensor]
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise BuildError(
            f"tensor {tensor!r}: range [{low}, {high}], expected two finite numbers in order",
            fix="use calibration data without NaN or infinity",
        )
    return low, high


def quantize_weight(
    weight: NDArray[np.float32],
    axis: int | None,
    step: NDArray[np.float32],
    *,
    bias: NDArray[np.float32] | None = None,
    input_scale: NDArray[np.float32] | None = None,
    levels: NDArray[np.int8] | None = None,
) -> QuantizedWeight:
    """Return the int8 values of ``weight`` (any shape, float32).

    Args:
        weight: The float weight.
        axis: Its output-channel axis; None for one scale in all.
        step: Between two levels of each output channel, broadcastable to ``weight``:
        ``calibration.number_formats.weight_scales.weight_step``.
        bias: (channels,) or (1, channels) float32. Where it would not fit int32 at scale s_x * s_w (a dead channel with a bias), that
            channel's s_w is raised until it does.
        input_scale: s_x, 0-d; needed with ``bias``.
        levels: Values in the place of the nearest, on the grid of ``step``; not used in a channel whose s_w is raised.
    """
    scale = step
    if bias is not None and input_scale is not None:
        smallest = (np.abs(bias.astype(np.float64)) * _HEADROOM / (float(input_scale) * _INT32_MAX)).astype(np.float32)
        if axis is None:
            scale = np.maximum(scale, smallest.max(initial=0.0))
        else:
            channels = weight.shape[axis]  # a grouped ConvTranspose has one weight channel for several outputs
            shape = [1] * weight.ndim
            shape[axis] = channels
            scale = np.maximum(scale, smallest.reshape(-1, channels).max(axis=0).reshape(shape))
    values = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
    if levels is not None:
        values = np.where(scale == step, levels, values).astype(np.int8)
    return QuantizedWeight(values, np.asarray(scale.reshape(-1) if axis is not None else scale.reshape(()), dtype=np.float32))


def quantize_bias(
    bias: NDArray[np.float32], input_scale: NDArray[np.float32], scale_of_weight: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return (values, scale) of a bias: values (channels,) int32, scale = s_x * s_w, (channels,) or 0-d float32."""
    scale = np.asarray(input_scale * scale_of_weight, dtype=np.float32)
    if scale.ndim and scale.shape[0] != bias.shape[0]:
        scale = np.tile(scale, bias.shape[0] // scale.shape[0])
    values = np.round(bias.astype(np.float64) / scale)
    return np.clip(values, -_INT32_MAX, _INT32_MAX).astype(np.int32), scale


def typed_scale(scale: NDArray[np.float32], dtype: np.dtype[np.generic], tensor: str) -> NDArray[np.generic]:
    """Return ``scale`` (any shape) in the float type of the tensor, at least 1e-6: TensorRT refuses a scale that is not positive.

    Raises:
        BuildError: A scale is too large for the type.
    """
    with np.errstate(over="ignore"):
        typed = np.maximum(scale, _SMALLEST_TYPED).astype(dtype)
    if not np.all(np.isfinite(typed.astype(np.float32))):
        raise BuildError(
            f"tensor {tensor!r}: scale {float(scale.max()):g}, expected one that {dtype} holds",
            fix="leave the layers that read it in fp32, or calibrate with smaller values",
        )
    return typed


_SMALLEST_TYPED = np.float32(1e-6)
