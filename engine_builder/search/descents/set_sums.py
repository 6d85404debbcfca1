"""Sums over the layers of each of many sets: a product with the matrix of who is in which, or, where that is large, sums over runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MOST_DENSE = 60_000  # entries of a matrix that a processor's cache holds


class SetSums:
    """Sets of layers, by place, each with one layer at least."""

    def __init__(self, sets: Sequence[tuple[int, ...]], layers: int, *, is_dense: bool | None = None) -> None:
        """Lay out the sets.

        Args:
            sets: The layers of each.
            layers: How many there are.
            is_dense: Whether to keep the matrix; None: where it is small.
        """
        self._count, self._sizes = layers, [len(one) for one in sets]
        self._layers = np.array([layer for one in sets for layer in one], dtype=np.intp)
        self._starts = np.cumsum([0, *self._sizes])[:-1]
        self.is_dense = layers * len(sets) <= MOST_DENSE if is_dense is None else is_dense
        self._matrix = self.members().astype(np.float64) if self.is_dense else None

    def members(self) -> NDArray[np.bool_]:
        """Return (layers, sets), who is in which."""
        found = np.zeros((self._count, len(self._sizes)), dtype=bool)
        found[self._layers, self._set_of()] = True
        return found

    def _set_of(self) -> NDArray[np.intp]:
        return np.repeat(np.arange(len(self._sizes), dtype=np.intp), self._sizes)

    def of(self, values: Floats) -> Floats:
        """Return the sums, (..., sets), of what each layer has, (..., layers)."""
        if self._matrix is not None:
            return np.asarray(values @ self._matrix)
        return np.asarray(np.add.reduceat(values[..., self._layers], self._starts, axis=-1))

    def of_own(self, values: Floats) -> Floats:
        """Return the sums, (sets,), of what each layer has in each set, (layers, sets)."""
        if not len(self._starts):
            return np.zeros(0)
        return np.asarray(np.add.reduceat(values[self._layers, self._set_of()], self._starts))
