"""Orders of decisions, the cheapest first: what a bisection takes prefixes of.

* ``loss``: by the measured quantization loss h of each decision alone.
* ``hessian``: by the second-order estimate of the same.
* ``hessian+dependency``: greedily, the decision that adds least given what is already low:
  hessian_i + sum over j already low of D_ij. Conditioning on what is low is what made dependencies pay where they were measured;
  adding the sum of all D_ij up front made the order worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.dependency import DependencyMatrix
from calibration.sensitivity import SensitivityTable
from calibration.singles import Decision
from engine_builder.config import Order


def orders_from(table: SensitivityTable, dependencies: DependencyMatrix, wanted: Sequence[Order]) -> dict[str, tuple[Decision, ...]]:
    """Return each wanted order; two that came out alike are both there, since trials are shared by content."""
    decisions = tuple(row.decision for row in table.rows)
    loss = np.array([row.loss for row in table.rows])
    hessian = np.array([row.loss if row.hessian is None else row.hessian for row in table.rows])
    made: Mapping[Order, tuple[int, ...]] = {
        Order.LOSS: _ascending(loss),
        Order.HESSIAN: _ascending(hessian),
        Order.HESSIAN_AND_DEPENDENCY: conditional_order(hessian, dependencies.interaction),
    }
    return {order.value: tuple(decisions[index] for index in made[order]) for order in wanted}


def conditional_order(alone: NDArray[np.float64], interaction: NDArray[np.float64]) -> tuple[int, ...]:
    """Return indices so that each adds least to the loss given those before it.

    Args:
        alone: (n,), loss of each alone.
        interaction: (n, n), symmetric; extra loss of each pair.
    """
    left = list(range(len(alone)))
    added = alone.astype(np.float64).copy()
    order = []
    while left:
        best = min(left, key=lambda index: (added[index], index))
        left.remove(best)
        order.append(best)
        added += interaction[:, best]
    return tuple(order)


def _ascending(cost: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argsort(cost, kind="stable"))
