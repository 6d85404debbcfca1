"""Precisions a layer may take, and how a tensor looks after a round trip through one.

Integer formats round half to even onto q = clip(round(x / scale) + zero_point, low, high) and back (ONNX QuantizeLinear, opset 10). FP8 is
E4M3 without infinities: x / scale, with the scale such that the largest value is 448, is rounded to four significant bits and saturates.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import ml_dtypes
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

    Activations are per tensor; weights are symmetric and per output channel. Where ``strongly_typed`` (TensorRT), the types in
    the graph are those of the kernels; FP8 then rounds inputs and weight with one scale each, INT4 the weight alone in blocks of ``block``
    along the reduction axis, FP16 and BF16 everything that the layer reads and writes; a sum rounds only those inputs that a weighted layer
    reads too, since nothing else has a stored low-precision copy to share; and a Softmax has the range [0, 1], whatever was measured.
    Where ``bounds_pairs``, INT8 weights keep the pair bound (``calibration.number_formats.pair_bound``), for processors whose integer
    kernels saturate.
    """

    symmetric_activations: bool  # signed with zero point 0 (TensorRT), else unsigned with a zero point (ONNX Runtime CPU)
    quantized_outputs: tuple[str, ...]  # op types whose output is quantized too (for all of its consumers)
    block: int = 32
    strongly_typed: bool = False
    bounds_pairs: bool = False


ONNXRUNTIME_CPU_SCHEME = Scheme(symmetric_activations=False, quantized_outputs=("Conv", "ConvTranspose", "Add", "Gemm"))
TENSORRT_SCHEME = Scheme(symmetric_activations=True, quantized_outputs=(), strongly_typed=True)


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


def block_scale(weight: NDArray[np.float32], axis: int, *, block: int, bits: int) -> NDArray[np.float32]:
    """Return the symmetric scale of each ``block`` elements along ``axis``, (..., ceil(n / block), ...) float32; the last may be fewer."""
    peak = np.maximum.reduceat(np.abs(weight), np.arange(0, weight.shape[axis], block), axis=axis)
    return np.asarray(np.maximum(peak / (2 ** (bits - 1) - 1), _MIN_SCALE), dtype=np.float32)


def fake_quantize_blocks(weight: NDArray[np.float32], axis: int, *, block: int, bits: int = 4) -> NDArray[np.float32]:
    """Return ``weight`` after a round trip through symmetric integers with one scale for each ``block`` elements along ``axis``."""
    scale = np.repeat(block_scale(weight, axis, block=block, bits=bits), block, axis=axis)
    scale = np.take(scale, np.arange(weight.shape[axis]), axis=axis)
    top = 2 ** (bits - 1) - 1
    return np.asarray(np.clip(np.round(weight / scale), -top, top) * scale, dtype=np.float32)


def fp8_scale(low: float, high: float) -> np.float32:
    """Return the scale that puts the largest magnitude of the range [low, high] at the largest FP8 value."""
    return np.float32(max(max(abs(low), abs(high)) / FP8_MAX, _MIN_SCALE))


def fake_quantize_fp8(x: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Return ``x`` (any shape, float32) after a round trip through saturating FP8 with the scale of the range [low, high]."""
    scale = fp8_scale(low, high)
    return np.asarray(np.clip(x / scale, -FP8_MAX, FP8_MAX).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale, dtype=np.float32)


def fake_cast(x: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """Return ``x`` (any shape, float32) after a round trip through FP16 or BF16; what FP16 cannot hold becomes infinite."""
    if precision is Precision.FP32:
        return x
    with np.errstate(over="ignore"):
        return np.asarray(x.astype(_HALVES[precision]).astype(np.float32))


FP8_MAX = 448.0  # largest E4M3 value
FP16_MAX = 65504.0  # largest finite FP16 value
_HALVES: dict[Precision, np.dtype[np.generic]] = {Precision.FP16: np.dtype(np.float16), Precision.BF16: np.dtype(ml_dtypes.bfloat16)}
_MIN_SCALE = 1e-8  # a constant-zero tensor still needs a positive scale
