"""Number formats that nobody offers: small floats of another split of their bits, and weights that are powers of two."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from calibration.number_formats.grids import ScaledFloatGrid
from calibration.number_formats.number_format import FormatTable, NumberFormat


@dataclass(frozen=True, slots=True)
class PowersOfTwo:
    """Zero and the signed powers of two below the largest magnitude of a tensor: a kernel shifts where others multiply."""

    exponents: int
    storage: np.dtype[np.generic]
    top: float = 1.0
    bottom: float = -1.0
    is_scaled = True
    is_integer = False

    def activation(self, low: float, high: float, *, symmetric: bool) -> tuple[np.float32, NDArray[np.generic]]:
        raise TypeError("powers of two are for weights alone")

    def round_activation(self, x: NDArray[np.float32], low: float, high: float, *, symmetric: bool) -> NDArray[np.float32]:
        raise TypeError("powers of two are for weights alone")

    def round_weight(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        peak = np.float32(np.abs(weight).max())
        share = np.abs(weight) / peak
        with np.errstate(divide="ignore"):
            exponent = np.round(np.log2(share))
        rounded = np.where(exponent > -self.exponents, np.sign(weight) * np.exp2(exponent) * peak, 0.0)
        return np.asarray(rounded, dtype=np.float32)


class ToyFormat(FormatTable):
    """The table that has them; beside ``Precision``, whose words are those of a configuration."""

    E5M2 = NumberFormat(
        "e5m2",
        8,
        TensorProto.FLOAT8E5M2,
        ScaledFloatGrid(np.dtype(ml_dtypes.float8_e5m2), top=57344.0),
        "#6b8e23",
        rounds_inputs=True,
        least_opset=19,
    )
    POT4 = NumberFormat("pot4", 4, TensorProto.INT4, PowersOfTwo(7, np.dtype(np.int8)), "#8b1a1a")
