r"""The frontier: assignments that the models of loss and time predict to be best at each exchange rate between the two.

For each lambda the local minimum of T(S) + lambda * L(S), with T from time_model.py and the second-order loss L from loss_model.py. A move
gives one layer another choice, or the two ends of a tensor together the same one (they often pay only together); likewise all layers that
read a tensor whose writer stores it in the one form they take. A group counts as one layer.

lambda is swept from both ends, each time starting from the last minimum: upwards from each one-format engine, downwards from the baseline.
Each one-format engine's own precisions are swept by themselves too, so that more choices never make the frontier worse. All points are kept
that no other beats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.search.descent import Descent, Move
from engine_builder.search.search_space import Groups, choices_of, eligible_from, one_format_engines, units
from engine_builder.search.time_model import TimeModel

RATES = 40  # values of lambda


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
) -> tuple[Point, ...]:
    """Return predicted assignments of growing loss and falling latency, the baseline left out.

    Args:
        layer_precisions: (n,) what the layers may choose, those of one layer in the target's order.
        loss: (n,) each one's loss alone.
        interaction: (n, n) extra loss of each pair, symmetric, zero on the diagonal.
        times: Predicts latency.
        groups: Names of layers that only pay together: a group takes a precision as one, or stays at the baseline.
    """
    found: dict[frozenset[LayerPrecision], Point] = {}
    for subset, starts in _sweeps(layer_precisions, groups):
        places = [place for place, layer_precision in enumerate(layer_precisions) if layer_precision in subset]
        kept = [layer_precisions[place] for place in places]
        losses = loss[places]
        descent = Descent(kept, losses, interaction[np.ix_(places, places)], times, _moves(eligible_from(kept), times, groups))
        rates = _rates(losses, times, kept)
        for start in starts:
            descent.start(start)
            for rate in rates if start else rates[::-1]:
                descent.descend(float(rate))
                quantized = descent.quantized
                if quantized not in found:
                    found[quantized] = Point(quantized, descent.ratio, descent.loss)
    return undominated(found.values())


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
    """Return each unit's own moves, then those of units that one tensor joins."""
    present = [group for group in groups if all(layer in eligible for layer in group)]
    unit_of = {layer: unit for unit in units(eligible, present) for layer in unit}
    order = {unit: place for place, unit in enumerate(dict.fromkeys(unit_of.values()))}
    joined: set[tuple[tuple[str, ...], ...]] = set()
    for edge in times.edges:
        readers = {unit_of[layer] for layer in edge.readers if layer in unit_of}
        if edge.producer in unit_of:
            joined.update(_in_order({unit_of[edge.producer], reader}, order) for reader in readers)
        if edge.is_fused:
            joined.add(_in_order(readers, order))
    together = sorted((part for part in joined if len(part) > 1), key=lambda part: [order[unit] for unit in part])
    sets = [*unit_of.values(), *(tuple(layer for unit in part for layer in unit) for part in together)]
    return [Move(layers, choice) for layers in dict.fromkeys(sets) for choice in (None, *choices_of(layers, eligible))]


def _in_order(found: Iterable[tuple[str, ...]], order: Mapping[tuple[str, ...], int]) -> tuple[tuple[str, ...], ...]:
    return tuple(sorted(found, key=order.__getitem__))


def _rates(loss: NDArray[np.float64], times: TimeModel, layer_precisions: Sequence[LayerPrecision]) -> NDArray[np.float64]:
    """Return lambdas from 0 to where nothing is worth its loss, ascending."""
    gains = np.array([abs(times.gain_ms.get(layer_precision, 0.0)) / times.baseline_ms for layer_precision in layer_precisions])
    worth = gains / np.maximum(loss, 1e-12)
    worth = worth[worth > 0.0]
    if not len(worth):
        return np.zeros(1)
    return np.concatenate([[0.0], np.geomspace(worth.min() / 4.0, worth.max() * 4.0, RATES)])
