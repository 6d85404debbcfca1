"""Orders of layer precisions, the cheapest first: what a bisection takes prefixes of.

* ``loss``: by the measured quantization loss h of each layer precision alone.
* ``hessian``: by the second-order estimate of the same.
* ``conditional``: greedily, the layer precision that adds least given what is already quantized: h_i + sum over j already quantized of
  D_ij, with the D_ij shrunk by their uncertainty (``likely_interactions``). Adding the sum of all D_ij up front instead made the order
  worse wherever it was measured.
* ``hessian+dependency``: the same with the Hessian estimate s_i in place of h_i, and D_ij * sqrt(s_i s_j / (h_i h_j)) in place of D_ij.

D_ij / (2 sqrt(h_i h_j)) is the cosine between what two layer precisions do to the outputs, and holds whatever their sizes are. The Hessian
estimate is off the measured loss by a factor of its own at every layer precision (at 4 bits commonly 2). Next to interactions on the scale
of the losses that made the form that the order goes by negative for some sets, and the order worse than without interactions.

Every layer precision is in an order once. Where a layer may take several precisions, a later layer precision of a layer replaces the
former: what it adds is counted against that, and a prefix gives each layer the last one that it has in there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.interactions import DependencyMatrix
from calibration.sensitivity.records import SensitivityTable
from engine_builder.config.config import Order
from engine_builder.search.search_space import Groups, legalized


def orders_from(table: SensitivityTable, dependencies: DependencyMatrix, wanted: Sequence[Order]) -> dict[str, tuple[LayerPrecision, ...]]:
    """Return each wanted order; two that came out alike are both there, since trials are shared by content."""
    layer_precisions = tuple(row.layer_precision for row in table.rows)
    loss = np.array([row.loss for row in table.rows])
    hessian = np.array([row.loss if row.hessian is None else row.hessian for row in table.rows])
    made: Mapping[Order, tuple[int, ...]] = {
        Order.LOSS: _ascending(loss),
        Order.HESSIAN: _ascending(hessian),
        Order.HESSIAN_AND_DEPENDENCY: dependency_order(hessian, dependencies, loss),
        Order.CONDITIONAL: dependency_order(loss, dependencies, loss),
    }
    return {order.value: tuple(layer_precisions[index] for index in made[order]) for order in wanted}


def dependency_order(alone: NDArray[np.float64], dependencies: DependencyMatrix, measured: NDArray[np.float64]) -> tuple[int, ...]:
    """Return indices so that each adds least to the loss given those before it, as far as the dependencies are certain.

    Args:
        alone: (n,), loss of each layer precision alone by any estimate, in the order of the matrix.
        dependencies: Their interactions with standard errors.
        measured: (n,), the measured loss of each alone, which the interactions go with; ``alone`` itself where that is measured.
    """
    interaction = likely_interactions(dependencies, measured).mean
    if alone is not measured:
        interaction = rescaled(interaction, measured, alone)
    return conditional_order(alone, interaction, [layer_precision.layer for layer_precision in dependencies.layer_precisions])


def rescaled(interaction: NDArray[np.float64], measured: NDArray[np.float64], alone: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the interactions that have the same cosines with other losses; none where a loss is not positive, no cosine beyond 1.

    Args:
        interaction: (n, n), extra loss of each pair.
        measured: (n,), the loss of each alone that they were measured with.
        alone: (n,), the loss of each alone that they are to go with.
    """
    known = (measured > 0.0) & (alone > 0.0)
    factor = np.sqrt(np.where(known, alone, 0.0) / np.where(known, measured, 1.0))
    most = 2.0 * np.sqrt(np.maximum(alone, 0.0))
    bound = np.outer(most, most) / 2.0
    return np.asarray(np.clip(interaction * np.outer(factor, factor), -bound, bound), dtype=np.float64)


def conditional_order(alone: NDArray[np.float64], interaction: NDArray[np.float64], layers: Sequence[str] | None = None) -> tuple[int, ...]:
    """Return indices so that each adds least to the loss given those before it.

    Args:
        alone: (n,), loss of each alone.
        interaction: (n, n), symmetric; extra loss of each pair.
        layers: (n,), the layer of each: one replaces another of its layer. None where every layer has one.
    """
    names = list(layers) if layers is not None else [str(index) for index in range(len(alone))]
    left = list(range(len(alone)))
    taken: dict[str, int] = {}
    added = alone.astype(np.float64).copy()  # to the loss, by each, given what is taken

    def cost(index: int) -> float:
        former = taken.get(names[index])
        return float(added[index] if former is None else added[index] - added[former] - interaction[index, former])

    order = []
    while left:
        best = min(left, key=lambda index: (cost(index), index))
        left.remove(best)
        order.append(best)
        if (former := taken.get(names[best])) is not None:
            added -= interaction[:, former]
        taken[names[best]] = best
        added += interaction[:, best]
    return tuple(order)


def prefixes(
    order: Sequence[LayerPrecision],
    groups: Groups = (),
    is_worth: Callable[[LayerPrecision, LayerPrecision], bool] = lambda new, former: True,
) -> tuple[dict[str, Precision], ...]:
    """Return the assignments that the prefixes of an order make, each once; a whole order of one layer precision a layer is left out.

    That one is the engine with every layer quantized, which is known before any prefix is tried.

    Args:
        order: Layer precisions, the cheapest first.
        groups: Names of layers that only pay together: a group of more than one choice stays at the baseline.
        is_worth: Told a layer precision and the former one of its layer, returns whether it replaces that.
    """
    taken: dict[str, LayerPrecision] = {}
    candidates: list[dict[str, Precision]] = []
    for layer_precision in order:
        former = taken.get(layer_precision.layer)
        if former is None or is_worth(layer_precision, former):
            taken[layer_precision.layer] = layer_precision
            candidate = legalized({layer: choice.precision for layer, choice in taken.items()}, groups)
            if candidate and (not candidates or candidate != candidates[-1]):
                candidates.append(candidate)
    is_single = len({layer_precision.layer for layer_precision in order}) == len(order)
    everything = {layer_precision.layer: layer_precision.precision for layer_precision in order}
    return tuple(candidates[:-1] if is_single and candidates and candidates[-1] == everything else candidates)


@dataclass(frozen=True, slots=True, eq=False)
class LikelyInteractions:
    """What the interactions are likely to be, each of (n, n), symmetric, zero on the diagonal.

    ``mean``; ``error``: standard error of each pair, which pairs do not share; ``common_error``: that of the middle of a group, which its
    pairs share, so that those of a set add up.
    """

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    common_error: NDArray[np.float64]


def likely_interactions(dependencies: DependencyMatrix, measured: NDArray[np.float64]) -> LikelyInteractions:
    """Return the interactions shrunk by their evidence.

    Interactions are many, and one by one too noisy to tell: where all are noise, a third still exceed their standard errors. So all cosines
    D_ij / 2 sqrt(h_i h_j) of a group are shrunk towards its middle by the one factor that minimizes their squared error, 1 - sum of
    variances / sum of squares about the middle (Ledoit and Wolf's shrinkage of a correlation matrix, in the form of Schaefer and Strimmer
    2005).

    Case 1. Tested pairs that share a rounded tensor. The tensor is rounded once in the engine and counted twice in the losses alone, so
    they cost less together: their middle is that of the group, sum of D_ij / sum of 2 sqrt(h_i h_j).
    Case 2. Pairs that share a tensor and were not tested have the middle of case 1: the screen counts the shared error twice.
    Case 3. Other tested pairs, and case 4, pairs that were screened alone: their middle is 0. Of what is screened, about 0.8 is kept at
    4 bits and 0.1 at 8 on the networks of ``benchmarks``.

    Args:
        dependencies: The interactions with standard errors.
        measured: (n,), the measured loss of each layer precision alone.
    """
    layers = np.array([layer_precision.layer for layer_precision in dependencies.layer_precisions])
    place = {layer_precision: index for index, layer_precision in enumerate(dependencies.layer_precisions)}
    tested = np.zeros(dependencies.interaction.shape, dtype=bool)
    for test in dependencies.tests:
        i, j = place[test.first], place[test.second]
        tested[i, j] = tested[j, i] = True
    size = np.sqrt(2.0 * np.maximum(measured, 0.0))
    bound = np.outer(size, size)  # 2 sqrt(h_i h_j)
    counted = (layers[:, None] != layers[None, :]) & (bound > 0.0)
    shares = counted & (np.zeros_like(tested) if dependencies.shares is None else dependencies.shares)
    cosine, error = (
        np.divide(part, bound, out=np.zeros_like(bound), where=counted) for part in (dependencies.interaction, dependencies.error)
    )
    mean, own, common = (np.zeros_like(bound) for _ in range(3))
    sharing = shares & tested
    if sharing.any():
        middle = float(dependencies.interaction[sharing].sum() / bound[sharing].sum())
        kept, spread = _share_of_signal(cosine, error, sharing, middle)
        mean[sharing] = middle + kept * (cosine[sharing] - middle)
        own[sharing] = math.sqrt(kept) * _known(error[sharing])
        mean[shares & ~tested], own[shares & ~tested] = middle, spread  # case 2
        common[shares] = _error_of_middle(error, bound, sharing)
    for group in (counted & tested & ~shares, counted & ~tested & ~(shares if sharing.any() else np.zeros_like(shares))):
        kept, _ = _share_of_signal(cosine, error, group, 0.0)
        mean[group] = kept * cosine[group]
        own[group] = math.sqrt(kept) * _known(error[group])
    return LikelyInteractions(mean * bound, own * bound, common * bound)


def _share_of_signal(
    cosine: NDArray[np.float64], error: NDArray[np.float64], group: NDArray[np.bool_], middle: float
) -> tuple[float, float]:
    """Return 1 - sum of variances / sum of squares about the middle of the cosines of a group, 0..1, and the deviation that is no noise."""
    squares = float(np.sum((cosine[group] - middle) ** 2))
    signal = squares - float(np.sum(error[group] ** 2))
    if not signal > 0.0:
        return 0.0, 0.0
    return signal / squares, math.sqrt(signal / np.count_nonzero(group))


def _known(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the errors, 0 where one is not known: nothing of such a group is kept."""
    return np.where(np.isfinite(error), error, 0.0)


def _error_of_middle(error: NDArray[np.float64], bound: NDArray[np.float64], group: NDArray[np.bool_]) -> float:
    """Return the standard error of a group's middle, its pairs taken as independent; each stands on both sides of the diagonal."""
    variance = 2.0 * float(np.sum((error[group] * bound[group]) ** 2))
    return math.sqrt(variance) / float(bound[group].sum())


def _ascending(cost: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.argsort(cost, kind="stable"))
