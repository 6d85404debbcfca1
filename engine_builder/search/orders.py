"""Orders of decisions, the cheapest first: what a bisection takes prefixes of.

* ``loss``: by the measured quantization loss h of each decision alone.
* ``hessian``: by the second-order estimate of the same.
* ``hessian+dependency``: greedily, the decision that adds least given what is already low:
  hessian_i + sum over j already low of D_ij, with each D_ij shrunk by its uncertainty. Adding the sum of all D_ij up front instead made
  the order worse wherever it was measured.
* ``conditional``: the same with the measured loss in place of the Hessian estimate.
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
        Order.HESSIAN_AND_DEPENDENCY: dependency_order(hessian, dependencies),
        Order.CONDITIONAL: dependency_order(loss, dependencies),
    }
    return {order.value: tuple(decisions[index] for index in made[order]) for order in wanted}


def dependency_order(alone: NDArray[np.float64], dependencies: DependencyMatrix) -> tuple[int, ...]:
    """Return indices so that each adds least to the loss given those before it, as far as the dependencies are certain.

    Args:
        alone: (n,), loss of each decision alone, in the order of the matrix.
        dependencies: Their interactions with standard errors.
    """
    return conditional_order(alone, certain_part(dependencies.interaction, dependencies.error))


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


def certain_part(interaction: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return interactions shrunk towards zero by how uncertain they are: D * max(0, 1 - (error / D)^2).

    At 8 bits most pairs interact less than the noise of their measurement, and an order that adds the noise up is worse than one that
    leaves dependencies out. This is the positive-part shrinkage of James and Stein for one entry at a time.

    Args:
        interaction: (n, n), extra loss of each pair.
        error: (n, n), its standard error; infinite where nothing is known.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.maximum(0.0, 1.0 - (error / interaction) ** 2)
    return np.where(interaction == 0.0, 0.0, interaction * kept)


def _ascending(cost: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argsort(cost, kind="stable"))
