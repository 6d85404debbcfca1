"""Precisions a layer may take, and how a tensor looks after a round trip through one.

Integer formats round half to even onto q = clip(round(x / scale) + zero_point, low, high) and back (ONNX QuantizeLinear, opset 10).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class Precision(enum.StrEnum):
    """A number format for a layer's inputs and weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"
    INT4 = "int4"

    @property
    def bits(self) -> int:
        """Bits per stored value."""
        return _BITS[self]


_BITS = {Precision.FP32: 32, Precision.FP16: 16, Precision.BF16: 16, Precision.INT8: 8, Precision.FP8: 8, Precision.INT4: 4}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a target quantizes: the numerics of its explicit graph, which probes must imitate exactly.

    Activations are per tensor; weights are symmetric and per output channel (INT4: blocks of ``block`` along the reduction axis).
    """

    symmetric_activations: bool  # signed with zero point 0 (TensorRT), else unsigned with a zero point (ONNX Runtime CPU)
    quantized_outputs: tuple[str, ...]  # op types whose output is quantized too (for all of its consumers)
    block: int = 32


ONNXRUNTIME_CPU_SCHEME = Scheme(symmetric_activations=False, quantized_outputs=("Conv", "ConvTranspose", "Add", "Gemm"))
TENSORRT_SCHEME = Scheme(symmetric_activations=True, quantized_outputs=())


def activation_grid(low: float, high: float, *, bits: int, symmetric: bool) -> tuple[np.float32, int, int, int]:
    """Return (scale, zero_point, lowest level, highest level) that cover the range [low, high] and contain zero.

    Args:
        low: Lowest value of the tensor.
        high: Highest value of the tensor.
        bits: Bits per value.
        symmetric: Signed with zero point 0 and levels -(2^(b-1)-1)..2^(b-1)-1, else unsigned with levels 0..2^b-1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        return np.float32(max(max(-low, high) / top, _MIN_SCALE)), 0, -top - 1, top
    levels = 2**bits - 1
    scale = np.float32(max((high - low) / levels, _MIN_SCALE))
    return scale, int(np.clip(np.round(-low / scale), 0, levels)), 0, levels


def fake_quantize_activation(x: NDArray[np.float32], low: float, high: float, *, bits: int, symmetric: bool) -> NDArray[np.float32]:
    """Return ``x`` (any shape, float32) after a round trip through the integer grid of the range [low, high]."""
    scale, zero_point, lowest, highest = activation_grid(low, high, bits=bits, symmetric=symmetric)
    q = np.round(x / scale)
    np.clip(q, lowest - zero_point, highest - zero_point, out=q)
    q *= scale
    return q.astype(np.float32, copy=False)


def weight_scale(weight: NDArray[np.float32], axis: int | None, *, bits: int) -> NDArray[np.float32]:
    """Return the symmetric scale of each output channel, shape broadcastable to ``weight``; one scale if ``axis`` is None."""
    axes = tuple(a for a in range(weight.ndim) if a != axis) if axis is not None else None
    peak = np.max(np.abs(weight), axis=axes, keepdims=True)
    return np.asarray(np.maximum(peak / (2 ** (bits - 1) - 1), _MIN_SCALE), dtype=np.float32)


def fake_quantize_weight(weight: NDArray[np.float32], axis: int | None, *, bits: int) -> NDArray[np.float32]:
    """Return ``weight`` after a round trip through symmetric per-channel integers with ``axis`` the output channel."""
    scale = weight_scale(weight, axis, bits=bits)
    top = 2 ** (bits - 1) - 1
    quantized = np.clip(np.round(weight / scale), -top, top) * scale
    return np.asarray(quantized, dtype=np.float32)


_MIN_SCALE = 1e-8  # a constant-zero tensor still needs a positive scale
