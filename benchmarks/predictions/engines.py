"""Mixed engines of a network: scattered layers, runs, prefixes of an order, and all but a run."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Shape(enum.StrEnum):
    """How the quantized layers lie in the network."""

    SCATTERED = "scattered"  # a random subset
    RUN = "run"
    PREFIX = "prefix"  # of a random order: larger and larger scattered sets
    ALL_BUT_RUN = "all but a run"


@dataclass(frozen=True, slots=True)
class Mixed:
    """An engine that is neither the float one nor the one with every layer quantized."""

    shape: Shape
    quantized: tuple[str, ...]


def mixed_engines(layers: Sequence[str], count: int, rng: np.random.Generator) -> tuple[Mixed, ...]:
    """Return about ``count`` engines of each shape, every assignment once.

    Args:
        layers: In topological order, at least 2.
        count: Of each shape.
        rng: Chooses.
    """
    total = len(layers)
    order = rng.permutation(total)
    found: dict[tuple[str, ...], Shape] = {}
    for index in range(count):
        start, stop = sorted(rng.choice(total + 1, 2, replace=False).tolist())
        length = int(rng.integers(1, max(total // 2, 2)))
        first = int(rng.integers(0, total - length + 1))
        chosen = {
            Shape.SCATTERED: {int(place) for place in np.flatnonzero(rng.random(total) < rng.uniform(0.2, 0.9))},
            Shape.RUN: set(range(start, stop)),
            Shape.PREFIX: set(order[: max(1, round(total * (index + 1) / (count + 1)))].tolist()),
            Shape.ALL_BUT_RUN: set(range(total)) - set(range(first, first + length)),
        }
        for shape, places in chosen.items():
            if 0 < len(places) < total:
                found.setdefault(tuple(layer for place, layer in enumerate(layers) if place in places), shape)
    return tuple(Mixed(shape, quantized) for quantized, shape in found.items())
