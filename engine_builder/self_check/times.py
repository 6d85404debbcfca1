"""What the stage that times engines hands on: the times of each engine, as a CUDA graph and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine_builder.backends.gpu.event_timing import Transfers


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """The times of one engine, in milliseconds for one run."""

    graph: bool  # whether it was captured as a CUDA graph; without, the first four times are of runs without one too
    no_graph_because: str | None
    median_ms: float
    p95_ms: float
    mad_ms: float  # median absolute deviation
    runs: int
    without_graph_ms: float  # median
    enqueue_ms: float  # the CPU's, to queue a run without a graph
    transfers_ms: Transfers


@dataclass(frozen=True, slots=True)
class TimedCases:
    """The times of every engine by the name of its case, and what was found to disturb them."""

    timings: Mapping[str, EngineTimes]
    warnings: tuple[str, ...]
