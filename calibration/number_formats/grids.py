"""How values round to the grids of number formats.

Integer formats round half to even onto q = clip(round(x / scale) + zero_point, low, high) and back (ONNX QuantizeLinear, opset 10). FP8 is
E4M3 without infinities: x / scale, with the scale such that the largest value is 448, is rounded to four significant bits and saturates.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class IntegerGrid:
    """Integers: weights symmetric, activations symmetric (signed, zero point 0) or on an unsigned grid with a zero point."""

    bits: int
    storage: np.dtype[np.generic]  # of weights, signed
    uses_lowest: bool = False  # whether weights may take the level -2^(bits - 1) too
    is_scaled = True
    is_integer = True

    @property
    def top(self) -> float:
        """The largest level."""
        return float(2 ** (self.bits - 1) - 1)

    @property
    def bottom(self) -> float:
        """The lowest level of a weight."""
        return -self.top - self.uses_lowest

    def activation(self, low: float, high: float, *, symmetric: bool) -> tuple[np.float32, NDArray[np.generic]]:
        """Return the scale and the zero point, int8 or uint8 for 8 bits."""
        scale, zero_point, _, _ = activation_grid(low, high, bits=self.bits, symmetric=symmetric)
        return scale, np.asarray(zero_point).astype(self.storage if symmetric else np.dtype(np.uint8))

    def round_activation(self, x: NDArray[np.float32], low: float, high: float, *, symmetric: bool) -> NDArray[np.float32]:
        """Return ``x`` after a round trip."""
        return fake_quantize_activation(x, low, high, bits=self.bits, symmetric=symmetric)

    def round_weight(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``weight`` after a round trip with one scale in all."""
        return fake_quantize_weight(weight, None, bits=self.bits)


@dataclass(frozen=True, slots=True)
class ScaledFloatGrid:
    """Small floats with one scale for a tensor, which puts its largest magnitude at the largest value; they saturate."""

    storage: np.dtype[np.generic]
    top: float  # the largest value
    is_scaled = True
    is_integer = False

    @property
    def bottom(self) -> float:
        """The lowest value."""
        return -self.top

    def activation(self, low: float, high: float, *, symmetric: bool) -> tuple[np.float32, NDArray[np.generic]]:
        """Return the scale, and 0: floats have a sign, so the grid is symmetric in any case."""
        return scale_of_largest(low, high, self.top), np.zeros((), dtype=self.storage)

    def round_activation(self, x: NDArray[np.float32], low: float, high: float, *, symmetric: bool) -> NDArray[np.float32]:
        """Return ``x`` after a round trip."""
        scale = scale_of_largest(low, high, self.top)
        rounded = np.clip(x / scale, -self.top, self.top).astype(self.storage).astype(np.float32)
        return np.asarray(rounded * scale, dtype=np.float32)

    def round_weight(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``weight`` after a round trip with the scale of its own range."""
        return self.round_activation(weight, float(weight.min()), float(weight.max()), symmetric=True)


@dataclass(frozen=True, slots=True)
class FloatGrid:
    """A float type that values are cast to; what it cannot hold becomes infinite."""

    storage: np.dtype[np.generic]
    top: float  # the largest finite value
    is_scaled = False
    is_integer = False

    @property
    def bottom(self) -> float:
        """The lowest finite value."""
        return -self.top

    def activation(self, low: float, high: float, *, symmetric: bool) -> tuple[np.float32, NDArray[np.generic]]:
        """Refuse: there is no scale."""
        raise TypeError(f"{self.storage}: a float type, which has no scale")

    def round_activation(self, x: NDArray[np.float32], low: float, high: float, *, symmetric: bool) -> NDArray[np.float32]:
        """Return ``x`` after a cast and back."""
        return self.round_weight(x)

    def round_weight(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``weight`` after a cast and back; itself where it has the type already."""
        if weight.dtype == self.storage:
            return weight
        with np.errstate(over="ignore"):
            return np.asarray(weight.astype(self.storage).astype(np.float32))


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


def dynamic_grid(x: NDArray[np.float32]) -> tuple[np.float32, np.uint8]:
    """Return the scale and the zero point of ONNX DynamicQuantizeLinear for ``x`` (any shape, float32), bit for bit.

    The range is that of the tensor, widened to contain zero; a tensor of zeros alone has the scale 1, and so has one here that is so small
    that the operator's scale is 0.
    """
    low, high = np.float32(min(x.min(initial=0.0), 0.0)), np.float32(max(x.max(initial=0.0), 0.0))
    scale = np.float32((high - low) / _UINT8_TOP) or np.float32(1.0)
    return scale, np.uint8(np.clip(np.round(-low / scale), 0, _UINT8_TOP))


def fake_quantize_dynamically(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``x`` (any shape, float32) after a round trip through 8-bit integers on its ``dynamic_grid``."""
    scale, zero_point = dynamic_grid(x)
    levels = np.clip(np.round(x / scale) + np.float32(zero_point), 0, _UINT8_TOP)
    return np.asarray((levels - np.float32(zero_point)) * scale, dtype=np.float32)


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


def scale_of_largest(low: float, high: float, top: float) -> np.float32:
    """Return the scale that puts the largest magnitude of the range [low, high] at the largest value ``top`` of a format."""
    return np.float32(max(max(abs(low), abs(high)) / top, _MIN_SCALE))


E4M3 = ScaledFloatGrid(np.dtype(ml_dtypes.float8_e4m3fn), top=448.0)
FP16_MAX = 65504.0  # largest finite FP16 value
_UINT8_TOP = np.float32(255)
_MIN_SCALE = 1e-8  # a constant-zero tensor still needs a positive scale
