r"""The best rounding of small filters: every weight up or down, all combinations tried.

What ``gptq.py`` finds one weight after another, d'Hd over the roundings of one output channel with d = w - q, is found here for sure where
there are few weights: a depthwise filter of 3 x 3 has 2^9 = 512 roundings.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from calibration.algorithms.gptq import DAMPING, Doubles
from calibration.number_formats.pair_bound import PAIR_LIMIT

MOST_WEIGHTS = 9  # of one output channel


class Enumeration:
    """Every rounding of the weights that multiply one tensor."""

    def __init__(self, hessian: Doubles) -> None:
        """List the roundings.

        Args:
            hessian: E[x'x], (channels, channels), symmetric and positive semidefinite, finite; at most MOST_WEIGHTS channels.
        """
        damping = DAMPING * float(np.diag(hessian).mean()) or 1.0
        self._hessian = hessian + damping * np.eye(len(hessian))
        self._ups = np.array(list(itertools.product((0.0, 1.0), repeat=len(hessian))))  # (roundings, channels)

    def levels(
        self, weight: NDArray[np.float32], step: NDArray[np.float32], limits: tuple[float, float], partners: NDArray[np.int64] | None = None
    ) -> NDArray[np.int8]:
        """Return the integer weights, (channels, outputs); arguments as for ``Rounder``."""
        steps = np.broadcast_to(step, weight.shape).astype(np.float64)
        exact = weight.astype(np.float64) / steps
        found = np.empty(weight.shape, dtype=np.int8)
        for output in range(weight.shape[1]):
            levels = np.clip(np.floor(exact[:, output]) + self._ups, *limits)
            errors = (levels - exact[:, output]) * steps[:, output]
            costs = np.einsum("ri,ij,rj->r", errors, self._hessian, errors, optimize=True)
            if partners is not None:
                costs[~_keep_pair_bound(levels, partners)] = np.inf  # the nearest levels keep it
            found[:, output] = levels[np.argmin(costs)]
        return found


def _keep_pair_bound(levels: Doubles, partners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of the roundings, (roundings, channels), keep the pair bound."""
    firsts = np.flatnonzero(partners >= 0)
    a, b = levels[:, firsts], levels[:, partners[firsts]]
    return np.asarray((np.where(a * b > 0, np.abs(a + b), 0.0) <= PAIR_LIMIT).all(axis=1))
