"""The integer weights of an LSTM, as ONNX Runtime's DynamicQuantizeLSTM takes them.

An LSTM multiplies its input by W, (directions, 4 * hidden, inputs), and its hidden state by R, (directions, 4 * hidden, hidden). The
integer kernel has both turned, (directions, terms of the sum, 4 * hidden), with one scale for each of the 4 * hidden columns and no zero
points. It rounds the input with the range that it has in the call, and the hidden state with that of each step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.graph.layers import Layer, LayerKind
from calibration.number_formats.pair_bound import keeps_pair_bound
from calibration.number_formats.precision import Precision, Scheme
from calibration.number_formats.weight_scales import weight_step

DOMAIN, OPERATOR = "com.microsoft", "DynamicQuantizeLSTM"
WEIGHT, RECURRENT = 1, 2  # which inputs of an LSTM are W and R
PLAIN_INPUTS = 8  # of an LSTM: X, W, R, B, sequence_lens, initial_h, initial_c, P; scales and zero points follow
_LEFT_OUT = frozenset({"layout"})  # attributes of an LSTM that the integer one does not know


@dataclass(frozen=True, slots=True, eq=False)
class IntegerGates:
    """One of the two weights."""

    levels: NDArray[np.int8]  # (directions, terms, 4 * hidden)
    scale: NDArray[np.float32]  # (directions, 4 * hidden)
    keeps_pair_bound: bool  # whether kernels that add pairs in 16 bits multiply it exactly

    @property
    def zero_point(self) -> NDArray[np.int8]:
        """Zeros, (directions, 4 * hidden)."""
        return np.zeros(self.scale.shape, dtype=np.int8)


def integer_gates(weight: NDArray[np.float32], layer: Layer, precision: Precision, scheme: Scheme) -> IntegerGates:
    """Return W or R on the grid of the precision.

    Args:
        weight: (directions, 4 * hidden, terms), float32.
        layer: The LSTM.
        precision: One that is dynamic.
        scheme: How the target quantizes; where it bounds pairs, these keep the bound.
    """
    product = replace(layer, kind=LayerKind.WEIGHTED, op_type="MatMul", weight_axis=1)  # what each direction's matrix is to a kernel
    top = precision.grid.top
    levels, scales, bounded = [], [], True
    for matrix in np.swapaxes(weight, 1, 2):
        step = np.broadcast_to(weight_step(np.ascontiguousarray(matrix), product, precision, scheme), (1, matrix.shape[1]))
        rounded = np.asarray(np.clip(np.round(matrix / step), -top, top), dtype=np.int8)
        levels.append(rounded)
        scales.append(step[0])
        bounded = bounded and keeps_pair_bound(rounded, product)
    return IntegerGates(np.stack(levels), np.stack(scales).astype(np.float32), bounded)


def takes_attribute(name: str) -> bool:
    """Return whether the integer LSTM has an attribute of a float one."""
    return name not in _LEFT_OUT
