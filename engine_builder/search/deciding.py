"""What to try next, and which ratios its own is compared with: how well an engine must be timed is what they ask for."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine_builder.search.search_space import QuantizedLayers


@dataclass(frozen=True, slots=True)
class Deciding:
    """Latencies as ratios to the baseline's; by default the engine's decides nothing."""

    bounds: tuple[float, ...] = ()  # what comes next depends on which side of each of them it is
    # The lowest ratio so far of an engine inside the budget, 1 of the baseline: what an engine inside the budget competes with. None where
    # the fastest engine is not what is looked for.
    best: float | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to try, and why."""

    quantized: QuantizedLayers
    order: str
    deciding: Deciding = field(default_factory=Deciding)  # what the latency of the engine is compared with
