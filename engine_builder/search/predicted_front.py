r"""The frontier: assignments that the models of loss and time predict to be best at each exchange rate between the two.

For each lambda the local minimum of T(S) + lambda * L(S), with T from time_model.py and the second-order loss L from loss_model.py. A move
gives one layer another choice, or the two ends of a tensor together the same one (they often pay only together); likewise all layers that
read a tensor whose writer stores it in the one form they take, blocks and runs of blocks (``moves.blocks``). A group counts as one layer.

lambda is swept from both ends, each time starting from the last minimum: upwards from each one-format engine, downwards from the baseline.
Each one-format engine's own precisions are swept by themselves too, so that more choices never make the frontier worse. All points are kept
that no other beats.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.descents.descent import Descent, Move
from engine_builder.search.moves.blocks import layer_sets
from engine_builder.search.search_space import Groups, QuantizedLayers, choices_of, eligible_from, one_format_engines, units
from engine_builder.search.time_model import TimeModel

RATES = 40  # values of lambda
SMALLEST_GAP = 0.02  # of the largest loss, between points that are looked between
CLEARLY = 0.03  # of the baseline's latency, about the error of a prediction
MOST_BETWEEN = 8  # parts of a gap


@dataclass(frozen=True, slots=True)
class Point:
    """A predicted assignment."""

    quantized: frozenset[LayerPrecision]  # at most one of each layer
    ratio: float  # predicted latency over the baseline's
    loss: float  # predicted


def frontier(
    layer_precisions: Sequence[LayerPrecision],
    loss: NDArray[np.float64],
    interaction: NDArray[np.float64],
    times: TimeModel,
    groups: Groups = (),
    *,
    is_filled: bool = False,
) -> tuple[Point, ...]:
    """Return predicted assignments of growing loss and falling latency, the baseline left out.

    Args:
        layer_precisions: (n,) what the layers may choose, those of one layer in the target's order.
        loss: (n,) each one's loss alone.
        interaction: (n, n) extra loss of each pair, symmetric, zero on the diagonal.
        times: Predicts latency.
        groups: Names of layers that only pay together: a group takes a precision as one, or stays at the baseline.
        is_filled: Whether to look between the points too: where layers pay in runs alone, exchange rates leave wide gaps.
    """
    found: dict[frozenset[LayerPrecision], Point] = {}
    for subset, starts in _sweeps(layer_precisions, groups):
        places = [place for place, layer_precision in enumerate(layer_precisions) if layer_precision in subset]
        kept = [layer_precisions[place] for place in places]
        losses = loss[places]
        descent = descent_over(kept, losses, interaction[np.ix_(places, places)], times, groups)
        rates = _rates(losses, times, kept)
        for start in starts:
            descent.start(start)
            for rate in rates if start else rates[::-1]:
                descent.descend(float(rate))
                quantized = descent.quantized
                if quantized not in found:
                    found[quantized] = Point(quantized, descent.ratio, descent.loss)
        if is_filled:
            for point in _between(undominated(found.values()), descent):
                found.setdefault(point.quantized, point)
    return undominated(found.values())


def _between(points: Sequence[Point], descent: Descent) -> list[Point]:
    """Return the fastest near each point that lose no more than some loss between its own and the next one's."""
    found: list[Point] = []
    least = max((point.loss for point in points), default=0.0) * SMALLEST_GAP
    for low, high in itertools.pairwise((Point(frozenset(), 1.0, 0.0), *points)):
        parts = min(int((high.loss - low.loss) / least), MOST_BETWEEN) if least > 0.0 else 0
        for part in range(1, parts):
            for start in (low, found[-1] if found else low):
                descent.start({layer_precision.layer: layer_precision.precision for layer_precision in start.quantized})
                most = low.loss + (high.loss - low.loss) * part / parts
                if descent.loss <= most:
                    descent.descend_within(most)
                    found.append(Point(descent.quantized, descent.ratio, descent.loss))
    return found


def descent_over(
    layer_precisions: Sequence[LayerPrecision],
    loss: NDArray[np.float64],
    interaction: NDArray[np.float64],
    times: TimeModel,
    groups: Groups = (),
) -> Descent:
    """Return a descent by all moves.

    Args:
        layer_precisions: (n,) what the layers may choose; others stay at the baseline.
        loss: (n,) each one's loss alone.
        interaction: (n, n) extra loss of each pair, symmetric, zero on the diagonal.
        times: Predicts latency.
        groups: Names of layers that only pay together.
    """
    return Descent(layer_precisions, loss, interaction, times, _moves(eligible_from(layer_precisions), times, groups))


def smoothed(rungs: Sequence[QuantizedLayers], descent: Descent) -> tuple[Point, ...]:
    """Return for each candidate the fastest near it that loses no more, by the models; by growing loss, none that another beats.

    What scatters quantized layers among floats thus gives way to what has them in runs: that near it, or, where that is clearly faster,
    what is found from the baseline on.

    Args:
        rungs: The candidates.
        descent: Over what the layers may choose. One for several orders: their candidates meet.
    """
    found = []
    for rung in rungs:
        descent.start(rung)
        most = descent.loss
        descent.descend_within(most)
        near = Point(descent.quantized, descent.ratio, descent.loss)
        descent.start({})
        descent.descend_within(most)
        found.append(near if descent.ratio > near.ratio - CLEARLY else Point(descent.quantized, descent.ratio, descent.loss))
    return undominated(found)


def undominated(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points that no other beats in both loss and latency, by growing loss."""
    ordered = sorted((p for p in points if p.quantized), key=lambda p: (p.loss, p.ratio, sorted(p.quantized)))
    kept: list[Point] = []
    for point in ordered:
        if not kept or point.ratio < kept[-1].ratio:
            kept.append(point)
    return tuple(kept)


def _sweeps(
    layer_precisions: Sequence[LayerPrecision], groups: Groups
) -> list[tuple[frozenset[LayerPrecision], list[dict[str, Precision]]]]:
    """Return sets of layer precisions to choose from and where to start in each: every one-format engine's own, then all."""
    eligible = eligible_from(layer_precisions)
    shared = {layer: choices_of(unit, eligible) for unit in units(eligible, groups) for layer in unit}
    possible = {layer: kinds for layer, kinds in shared.items() if kinds}
    precisions = tuple(dict.fromkeys(layer_precision.precision for layer_precision in layer_precisions))
    one_format = list(one_format_engines(possible, precisions).values())
    sweeps = [(frozenset(LayerPrecision(*item) for item in quantized.items()), [quantized, {}]) for quantized in one_format]
    if len(one_format) > 1:
        everything = frozenset(LayerPrecision(layer, kind) for layer, kinds in possible.items() for kind in kinds)
        sweeps.append((everything, [*one_format, {}]))
    return sweeps


def _moves(eligible: Mapping[str, Sequence[Precision]], times: TimeModel, groups: Groups) -> list[Move]:
    """Return each unit's own moves, then those of units that one tensor joins, of blocks and of runs of blocks."""
    sets = layer_sets(tuple(eligible), times.edges, groups)
    return [Move(layers, choice) for layers in sets for choice in (None, *choices_of(layers, eligible))]


def _rates(loss: NDArray[np.float64], times: TimeModel, layer_precisions: Sequence[LayerPrecision]) -> NDArray[np.float64]:
    """Return lambdas from 0 to where nothing is worth its loss, ascending."""
    gains = np.array([abs(times.gain_ms.get(layer_precision, 0.0)) / times.baseline_ms for layer_precision in layer_precisions])
    if not np.any(loss > 0.0):  # time alone decides: at every rate the same
        return np.zeros(1)
    worth = gains / np.maximum(loss, 1e-12)
    worth = worth[worth > 0.0]
    if not len(worth):
        return np.zeros(1)
    return np.concatenate([[0.0], np.geomspace(worth.min() / 4.0, worth.max() * 4.0, RATES)])
