"""Which layers a step changes together: single layers, the two ends of a tensor, blocks, and runs of blocks.

A network is cut behind every layer beyond which one tensor alone is read of all that was written before: behind each sum of a residual
network, and behind each layer of a plain chain. Between two cuts lies a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine_builder.search.search_space import Groups, units
from engine_builder.search.time_model import TensorEdge

RUNS = (2, 3, 4, 6, 8, 12, 16, 24, 32)  # blocks of a run that changes together
Layers = tuple[str, ...]


def blocks(layers: Sequence[str], edges: Sequence[TensorEdge]) -> tuple[Layers, ...]:
    """Return the blocks, in the order of the layers; every layer is in one.

    Args:
        layers: In topological order.
        edges: The tensors between them.
    """
    place = {layer: index for index, layer in enumerate(layers)}
    crossing = [0] * len(layers)  # tensors that are read behind each layer of those written up to it
    for edge in edges:
        read = [place[layer] for layer in edge.readers if layer in place]
        written = place.get(edge.producer) if edge.producer is not None else None
        if written is not None:
            for index in range(written, max(read, default=written)):
                crossing[index] += 1
    found: list[Layers] = []
    block: list[str] = []
    for layer, tensors in zip(layers, crossing, strict=True):
        block.append(layer)
        if tensors <= 1:
            found.append(tuple(block))
            block = []
    return (*found, tuple(block)) if block else tuple(found)


def layer_sets(layers: Sequence[str], edges: Sequence[TensorEdge], groups: Groups = ()) -> tuple[Layers, ...]:
    """Return the sets of layers that steps change, each once, the smallest kinds first.

    Args:
        layers: In topological order.
        edges: The tensors between them.
        groups: Names of layers that take a precision together: a set has all of a group or none.
    """
    present = [group for group in groups if all(layer in layers for layer in group)]
    unit_of = {layer: unit for unit in units(layers, present) for layer in unit}
    order = {unit: place for place, unit in enumerate(dict.fromkeys(unit_of.values()))}
    joined: set[tuple[Layers, ...]] = set()
    for edge in edges:
        readers = {unit_of[layer] for layer in edge.readers if layer in unit_of}
        if edge.producer in unit_of:
            joined.update(_in_order({unit_of[edge.producer], reader}, order) for reader in readers)
        if edge.is_fused:
            joined.add(_in_order(readers, order))
    pairs = sorted((part for part in joined if len(part) > 1), key=lambda part: [order[unit] for unit in part])
    single = blocks(layers, edges)
    runs = [single[start : start + length] for length in (1, *RUNS) for start in range(len(single) - length + 1)]
    whole = [_in_order({unit_of[layer] for block in run for layer in block}, order) for run in runs]
    sets = [(unit,) for unit in order] + pairs + whole
    return tuple(dict.fromkeys(tuple(layer for unit in part for layer in unit) for part in sets))


def _in_order(found: Iterable[Layers], order: dict[Layers, int]) -> tuple[Layers, ...]:
    return tuple(sorted(found, key=order.__getitem__))
