r"""GPTQ of weights: each is rounded in the light of what was rounded before it, not to the nearest level.

For a layer y = x W the error that matters is ||x W - x Q||^2 = sum over output channels of d'Hd, with d = w - q and H = E[x'x] over
calibration samples. Rounding one input channel after another and spreading the error of each over those that are still free (GPTQ, arXiv
2210.17323; optimal brain surgeon) has the closed form, with H^-1 = U'U, U upper triangular,

    e_i = (w_i - q_i) / U_ii,        w_j <- w_j - U_ij e_i  for j > i.

Channels with the largest H_ii go first, while most others are free. The levels stay on the grid that rounding to nearest would have, so
the grid needs to be known nowhere else. H is damped by a share of its mean diagonal; a channel that is always zero is rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.pair_bound import PAIR_LIMIT
from calibration.number_formats.precision import Precision

Levels = Mapping[tuple[str, Precision], NDArray[np.int8]]  # integer weights by layer and precision, each of the weight's shape
Doubles = NDArray[np.float64]

DAMPING = 0.01  # of the mean diagonal of H
LAZY = 64  # input channels whose errors are spread over the rest at once


class Rounder(Protocol):
    """Rounds weights in the light of H."""

    def levels(
        self, weight: NDArray[np.float32], step: NDArray[np.float32], limits: tuple[float, float], partners: NDArray[np.int64] | None = None
    ) -> NDArray[np.int8]:
        """Return the integer weights, (channels, outputs).

        Args:
            weight: (channels, outputs).
            step: Of the grid at each weight, broadcastable to it, not 0.
            limits: The lowest level and the highest.
            partners: (channels,), the channel that each is to keep the pair bound with, -1 for none; None where there is no such bound.
        """


class InverseFactor:
    """What the rounding of every weight that multiplies one tensor needs of H: the order of the channels, and U."""

    def __init__(self, hessian: Doubles, count: int = 1) -> None:
        """Factor H.

        A matrix of this size may be as large as the model: as few of them as can be are there at once.

        Args:
            hessian: E[x'x], (channels, channels), symmetric and positive semidefinite, finite; or so many times that.
            count: How many times.
        """
        diagonal = np.diag(hessian) / count
        damping = DAMPING * float(diagonal.mean()) or 1.0
        self.order = np.argsort(-diagonal, kind="stable")
        damped = hessian[np.ix_(self.order, self.order)]
        damped /= count
        damped[np.diag_indices_from(damped)] += damping
        inverse = np.linalg.inv(damped)
        del damped
        inverse += inverse.T
        inverse /= 2.0
        self.upper = np.linalg.cholesky(inverse).T

    def levels(
        self, weight: NDArray[np.float32], step: NDArray[np.float32], limits: tuple[float, float], partners: NDArray[np.int64] | None = None
    ) -> NDArray[np.int8]:
        """Return the integer weights, (channels, outputs); arguments as for ``Rounder``."""
        w = weight[self.order].astype(np.float64)
        steps = np.broadcast_to(step, weight.shape)
        found = np.empty(w.shape, dtype=np.int8)
        for start in range(0, len(w), LAZY):
            stop = min(start + LAZY, len(w))
            errors = np.empty((stop - start, w.shape[1]))
            for i in range(start, stop):
                own = steps[self.order[i]].astype(np.float64)
                level = np.clip(np.round(w[i] / own), *_limits(self.order, i, found, partners, limits))
                found[i] = level
                errors[i - start] = (w[i] - level * own) / self.upper[i, i]
                w[i + 1 : stop] -= np.outer(self.upper[i, i + 1 : stop], errors[i - start])
            w[stop:] -= self.upper[start:stop, stop:].T @ errors
        levels = np.empty_like(found)
        levels[self.order] = found
        return levels


def _limits(
    order: NDArray[np.int64], i: int, found: NDArray[np.int8], partners: NDArray[np.int64] | None, limits: tuple[float, float]
) -> tuple[Doubles | float, Doubles | float]:
    """Return the lowest and highest level of the i-th channel in order, by output where its partner's levels are found already."""
    if partners is None or partners[order[i]] < 0:
        return limits
    place = int(np.flatnonzero(order == partners[order[i]])[0])
    if place > i:
        return limits
    (bottom, top), other = limits, found[place].astype(np.float64)
    room = PAIR_LIMIT - np.abs(other)
    return np.where(other < 0, np.maximum(-room, bottom), bottom), np.where(other > 0, np.minimum(room, top), top)
