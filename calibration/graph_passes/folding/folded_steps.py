"""What was folded into layers, as a value and in words; read by whoever only reports it, so that nothing of a graph is imported here."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Place(enum.StrEnum):
    """Where a folded node stood."""

    BEHIND = "behind"  # a layer; perhaps with steps between that a factor passes
    BEFORE = "before"


@dataclass(frozen=True, slots=True)
class FoldedSteps:
    """Nodes of one operator on one side of layers that are now part of those."""

    operator: str  # Mul, Div, Add, Sub, Neg or BatchNormalization
    place: Place
    count: int
    saved: int  # of them, those that onnxruntime would not have folded by itself


def folded_in_words(steps: Iterable[FoldedSteps]) -> str:
    """Return what was folded, such as "28 Mul and 1 BatchNormalization behind layers, 25 Add before layers"; empty without any."""
    parts = []
    for place in Place:
        found = [f"{one.count} {one.operator}" for one in steps if one.place is place]
        if found:
            parts.append(f"{' and '.join((', '.join(found[:-1]), found[-1]) if found[1:] else found)} {place} layers")
    return ", ".join(parts)
