r"""How kernels that multiply blocks of integers round: weights in blocks along the axis that is summed over, and inputs row by row.

With blocks of n values, both factors of x W are integers times one scale a block, and each block's sum of integer products is exact:

    y_mj = sum over blocks b of  a_mb * s_bj * sum over k in b of  round(x_mk / a_mb) * q_kj.

Inputs: a_mb = max|x| / 127 in the block of that row alone, so that no answer depends on the other rows of a call.

Weights: s_bj puts the value of largest magnitude at an end of the grid. Of a grid that uses all of its levels the lowest one is that end,
and the step has the other sign than that value: 16 levels in the place of 15. At 4 bits smaller steps, which clip the largest values, are
tried too, and the one with the least squared error is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.precision import Precision

TOP = 127  # of a row's levels
LEAST_PEAK = 1e-30  # of a block: one of zeros still needs a positive scale
_CLIPPED = (0.95, 0.9, 0.85, 0.8, 0.75)  # of the full step, at few bits
_MIN_STEP = 1e-8  # as of other weights


def block_steps(weight: NDArray[np.float32], axis: int, precision: Precision) -> NDArray[np.float32]:
    """Return the step of each block of weights along ``axis``, (..., ceil(n / block), ...) float32, not 0; it may be negative.

    Args:
        weight: Of two or three axes.
        axis: That the product sums over.
        precision: One that ``rounds_blocks``; the last block may be shorter than its ``weight_block``.
    """
    grid, block = precision.grid, precision.weight_block or weight.shape[axis]
    moved = np.moveaxis(weight, axis, 0)
    rest = -len(moved) % block
    blocks = np.pad(moved, [(0, rest), *[(0, 0)] * (moved.ndim - 1)]).reshape(-1, block, *moved.shape[1:])
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    exact = extreme / np.float32(grid.bottom) if grid.bottom < -grid.top else np.abs(extreme) / np.float32(grid.top)
    full = np.where(np.abs(exact) < _MIN_STEP, np.float32(_MIN_STEP), exact).astype(np.float32)
    best = full
    if precision.has_few_bits:
        least = _squared_error(blocks, full, precision)
        for share in _CLIPPED:
            step = full * np.float32(share)
            error = _squared_error(blocks, step, precision)
            best, least = np.where(error < least, step, best), np.minimum(error, least)
    return np.asarray(np.moveaxis(best[:, 0], 0, axis), dtype=np.float32)


def fake_quantize_in_blocks(x: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Return ``x``, (..., n) float32, after a round trip through 8-bit integers with one scale for each ``block`` values of a row."""
    length = x.shape[-1]
    padded = np.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, -length % block)])
    blocks = padded.reshape(*x.shape[:-1], padded.shape[-1] // block, block)
    scale = np.maximum(np.abs(blocks).max(axis=-1, keepdims=True, initial=0.0), np.float32(LEAST_PEAK)) * np.float32(1 / TOP)
    rounded = np.round(blocks / scale) * scale
    return np.asarray(rounded.reshape(padded.shape)[..., :length], dtype=np.float32)


def _squared_error(blocks: NDArray[np.float32], step: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    error = np.clip(np.round(blocks / step), precision.grid.bottom, precision.grid.top) * step - blocks
    return np.asarray((error * error).sum(axis=1, keepdims=True), dtype=np.float32)
