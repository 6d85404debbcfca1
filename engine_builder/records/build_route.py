"""Build routes: settings of the target's own compiler, beside which an engine's precisions stay as they are, and what came of each.

TensorRT calls a setting a knob and a combination of their values a build route (its Global Performance Tuner, since 11.1). A route is
written as the builder takes it: ``-name=value`` tokens with spaces between them; a knob that is not named has its default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from engine_builder.records.assignment import FINGERPRINT_LENGTH
from engine_builder.timing import RelativeLatency

ROUTE = "route"  # what proposes the trial of an engine that was built by a route


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting of the builder, with a closed set of values."""

    name: str  # with its dash
    default: str
    values: tuple[str, ...]  # all that it may have


@dataclass(frozen=True, slots=True)
class Choice:
    """A knob at a value other than its default."""

    knob: str
    value: str


Route = tuple[Choice, ...]  # each knob once


@dataclass(frozen=True, slots=True)
class TriedRoute:
    """What came of an engine that was built by a route."""

    route: str  # as the builder takes it
    fingerprint: str  # of the engine
    relative: RelativeLatency | None  # to the engine that it came from, by the rounds of one timing; None where it was not timed
    accuracy: float | None  # mean score on every validation sample
    helped: bool  # whether it may ship: faster beyond the error of the timing, and inside the budget
    why_not: str | None  # None where it helped
    seconds: float  # of building, scoring and timing


@dataclass(frozen=True, slots=True)
class TriedRoutes:
    """The routes that were tried on one engine."""

    origin: str  # fingerprint of the engine that they were tried on
    knobs: int  # that the builder has
    tried: tuple[TriedRoute, ...]  # in their order
    ended: str  # why there are no more


def route_text(route: Iterable[Choice]) -> str:
    """Return a route as the builder takes it."""
    return " ".join(f"{choice.knob}={choice.value}" for choice in route)


def routed_fingerprint(origin: str, route: str) -> str:
    """Return the fingerprint of the engine that a route gives: its assignment is that of the engine it came from.

    Args:
        origin: The fingerprint of that engine.
        route: As the builder takes it.
    """
    return hashlib.sha256(f"route {route} of {origin}".encode()).hexdigest()[:FINGERPRINT_LENGTH]
