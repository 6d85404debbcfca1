"""Which build routes of an engine are tried: one knob at a time, then the product of those that helped.

1. Each value of each knob other than its default makes a route of its own.
2. A route helps where its engine keeps the budget and is faster than the engine it came from by more than ``MIN_GAIN`` and ``ERRORS``
   standard errors, both timed in turns.
3. Every combination of helpful values of different knobs, two knobs or more, is a route too. If knobs do not touch each other their ratios
   multiply. Combinations are tried in the order of that prediction, as long as it is below the best ratio that was measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from engine_builder.records.build_route import Choice, Knob, Route
from engine_builder.timing import ERRORS, MIN_GAIN, RelativeLatency

MOST_MIXED = 6  # knobs, those that helped most: the number of combinations grows as a power of it


def single_routes(knobs: Sequence[Knob]) -> tuple[Route, ...]:
    """Return the routes of rule 1, the first other value of each knob before second ones."""
    others = [[Choice(knob.name, value) for value in knob.values if value != knob.default] for knob in knobs]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*others))
    return tuple((choice,) for choice in in_turn if choice is not None)


def helps(relative: RelativeLatency) -> bool:
    """Return whether an engine is faster than the one it came from beyond what the timing can err (rule 2).

    Args:
        relative: Its latency to that of the engine it came from.
    """
    return 1.0 - relative.ratio > max(MIN_GAIN, ERRORS * relative.error)


def mixed_routes(helpful: Mapping[Choice, float]) -> Iterator[tuple[Route, float]]:
    """Yield the combinations of rule 3 with their predicted ratios, the lowest first.

    Args:
        helpful: Ratio of each choice that helped by itself, to the engine that it came from.
    """
    by_knob: dict[str, list[Choice]] = {}
    for choice in helpful:
        by_knob.setdefault(choice.knob, []).append(choice)
    best = sorted(by_knob.values(), key=lambda choices: min(helpful[choice] for choice in choices))[:MOST_MIXED]
    options: list[list[Choice | None]] = [[None, *choices] for choices in best]
    routes = (tuple(choice for choice in combined if choice is not None) for combined in itertools.product(*options))
    rated = [(route, math.prod(helpful[choice] for choice in route)) for route in routes if len(route) > 1]
    yield from sorted(rated, key=lambda item: item[1])
