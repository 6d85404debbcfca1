"""How often a tensor takes which values, over any number of batches, in constant memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 2048  # bins on each side of zero; between half of them and all are in use
_SMALLEST_WIDTH = 1e-30  # whose inverse is a float32


class Histogram:
    """Counts values in bins of one width on both sides of zero; the width doubles where a batch reaches further than the bins do."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.lowest, self.highest = np.inf, -np.inf
        self.zeros = 0  # exact ones: no grid rounds them
        self.counts: NDArray[np.int64] = np.zeros(2 * SIDE, dtype=np.int64)  # of what is not zero
        self.width = 0.0  # of a bin; 0 as long as every value was zero

    def add(self, values: NDArray[np.generic]) -> None:
        """Count the values, any shape; all are finite."""
        flat = np.asarray(values, dtype=np.float32).reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        reach = max(-low, high)
        if not reach:
            self.zeros += flat.size
            return
        self._widen(reach)
        bins = np.floor(flat * np.float32(1.0 / self.width)).astype(np.int64)
        np.clip(bins, -SIDE, SIDE - 1, out=bins)
        zeros = int(flat.size - np.count_nonzero(flat))
        self.counts += np.bincount(bins + SIDE, minlength=2 * SIDE)
        self.counts[SIDE] -= zeros
        self.zeros += zeros

    @property
    def total(self) -> int:
        """Values counted."""
        return int(self.counts.sum()) + self.zeros

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin, (bins,), inside the values seen."""
        middles = (np.arange(-SIDE, SIDE) + 0.5) * self.width
        return np.asarray(np.clip(middles, self.lowest, self.highest))

    def _widen(self, reach: float) -> None:
        if not self.width:
            self.width = max(reach / SIDE, _SMALLEST_WIDTH)
        while reach > self.width * SIDE:
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(SIDE // 2, np.int64), half, np.zeros(SIDE // 2, np.int64)])
            self.width *= 2.0
