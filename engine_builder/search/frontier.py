r"""The frontier: assignments that the models of loss and time predict to be best at each exchange rate between the two.

For each lambda the local minimum of T(S) + lambda * L(S) over sets S of low layers, with T from time_model.py and the second-order loss
L(S) = sum of h_i + sum over pairs of D_ij. The moves are one layer, or the two ends of a tensor together (they often pay only together).
lambda is swept from both ends, each time starting from the last minimum, and the better of the two is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine_builder.search.time_model import Predictor, TimeModel

RATES = 40  # values of lambda
SMALLEST_GAIN = 1e-9  # of the objective, for a move to count


@dataclass(frozen=True, slots=True)
class Point:
    """A predicted assignment."""

    low: frozenset[str]
    ratio: float  # predicted latency over the baseline's
    loss: float  # predicted


def frontier(layers: Sequence[str], loss: NDArray[np.float64], interaction: NDArray[np.float64], times: TimeModel) -> tuple[Point, ...]:
    """Return predicted assignments of growing loss and falling latency, the baseline left out.

    Args:
        layers: (n,) the layers that may be low.
        loss: (n,) each one's loss alone.
        interaction: (n, n) extra loss of each pair, symmetric, zero on the diagonal.
        times: Predicts latency.
    """
    place = {layer: index for index, layer in enumerate(layers)}
    ends = {
        (place[flow.producer], place[reader])
        for flow in times.flows
        if flow.producer in place
        for reader in flow.readers
        if reader in place
    }
    pairs = sorted({(min(pair), max(pair)) for pair in ends if pair[0] != pair[1]})
    moves: list[tuple[int, ...]] = [(index,) for index in range(len(layers))]
    moves += pairs

    ratio = Predictor(times, layers).ratio
    found: dict[bytes, Point] = {}
    rates = _rates(loss, times, layers)
    for start, sweep in ((True, rates), (False, rates[::-1])):
        chosen = np.full(len(layers), start)
        for rate in sweep:
            chosen = _descend(chosen, moves, lambda c, rate=rate: ratio(c) + rate * predicted_loss(c, loss, interaction))  # type: ignore[misc]  # the default binds the loop's rate
            low = frozenset(layers[int(index)] for index in np.flatnonzero(chosen))
            found[chosen.tobytes()] = Point(low, ratio(chosen), predicted_loss(chosen, loss, interaction))
    return undominated(found.values())


def predicted_loss(low: ArrayLike, loss: NDArray[np.float64], interaction: NDArray[np.float64]) -> float:
    """Return the second-order loss of an assignment: sum of h_i and of D_ij over the low layers, at least 0.

    Args:
        low: (n,) true where a layer is low.
        loss: (n,) each one's loss alone.
        interaction: (n, n) extra loss of each pair, symmetric, zero on the diagonal.
    """
    mask = np.asarray(low, dtype=np.float64)
    return max(float(mask @ loss + mask @ interaction @ mask / 2.0), 0.0)


def undominated(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points that no other beats in both loss and latency, by growing loss."""
    ordered = sorted((p for p in points if p.low), key=lambda p: (p.loss, p.ratio, sorted(p.low)))
    kept: list[Point] = []
    for point in ordered:
        if not kept or point.ratio < kept[-1].ratio:
            kept.append(point)
    return tuple(kept)


def _descend(
    chosen: NDArray[np.bool_], moves: Sequence[tuple[int, ...]], objective: Callable[[NDArray[np.bool_]], float]
) -> NDArray[np.bool_]:
    current = objective(chosen)
    improved = True
    while improved:
        improved = False
        for move in moves:
            trial = chosen.copy()
            trial[list(move)] = ~chosen[move[0]]
            value = objective(trial)
            if value < current - SMALLEST_GAIN:
                chosen, current, improved = trial, value, True
    return chosen


def _rates(loss: NDArray[np.float64], times: TimeModel, layers: Sequence[str]) -> NDArray[np.float64]:
    """Return lambdas from 0 to where nothing is worth its loss, ascending."""
    gains = np.array([abs(times.gain_ms.get(layer, 0.0)) / times.baseline_ms for layer in layers])
    worth = gains / np.maximum(loss, 1e-12)
    worth = worth[worth > 0.0]
    if not len(worth):
        return np.zeros(1)
    return np.concatenate([[0.0], np.geomspace(worth.min() / 4.0, worth.max() * 4.0, RATES)])
