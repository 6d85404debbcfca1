"""Times engines on the GPU, as trtexec does, with all of them in turns so that drift of the clock hits all alike.

1. Each engine runs once, so that lazy initialisation is over; then it is captured as a CUDA graph. If any cannot be captured, all are timed
   without a graph, since a graph alone makes small engines faster.
2. A sample is as many runs back to back as last a millisecond or more, between two events: GPU time, which no waiting thread distorts.
3. After a warm-up, each round takes one sample of every engine, the order rotating. The first run after another engine is not
   in the sample.

Copies between host and GPU are timed apart (``transfers_on_gpu``): a server may hide them behind the previous batch.
Not yet run on a GPU; tested with a clock and a device that only pretend.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine_builder.backends.gpu.cuda_runtime import Graph, Stream
from engine_builder.backends.gpu.state import GpuSample
from engine_builder.errors import EngineError
from engine_builder.timing import Enough, Timing, all_the_time

WARM_UP_SECONDS = 0.2  # trtexec's
MIN_SAMPLE_MS = 1.0  # the clock of events counts in about half a microsecond
_MAX_RUNS_IN_SAMPLE = 100


class Work(Protocol):
    """An open engine whose inputs lie on the GPU, with its shapes and addresses set."""

    def enqueue(self, stream: int) -> bool:
        """Queue one run on the stream with this handle; False if the runtime refused."""

    def copy_in(self, stream: Stream) -> None:
        """Queue the copies of one batch of inputs to the GPU."""

    def copy_out(self, stream: Stream) -> None:
        """Queue the copies of its outputs to the host."""


@dataclass(frozen=True, slots=True)
class GpuTiming:
    """GPU time of one engine, in milliseconds a run."""

    timing: Timing  # one block a round, so that engines of one call compare with engine_builder.timing's functions
    p90_ms: float
    p99_ms: float
    runs_in_sample: int
    graph: bool
    no_graph_because: str | None
    enqueue_ms: float  # median of the CPU's time to queue a run without a graph: above median_ms, the CPU is what limits such a run
    states: tuple[GpuSample | None, ...]  # of each round, the same for all engines of a call


@dataclass(frozen=True, slots=True)
class Transfers:
    """Median milliseconds of copying one batch."""

    to_device_ms: float
    to_host_ms: float


def time_on_gpu(
    works: Mapping[str, Work],
    stream: Stream,
    *,
    seconds: float,
    min_rounds: int = 10,
    max_rounds: int = 10_000,
    enough: Enough = all_the_time,
    use_graph: bool = True,
    state: Callable[[], GpuSample | None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, GpuTiming]:
    """Return the GPU time of each engine.

    Args:
        works: What to time, by name; the baseline is one of them.
        stream: Where it runs.
        seconds: For all together, warm-up apart.
        min_rounds: Samples of each, even if that takes longer.
        max_rounds: Samples of each, even if time is left.
        enough: Asked after each round, by the samples, whether the rounds may end early.
        use_graph: Whether to try CUDA graphs.
        state: Returns the GPU's state as last read, at once; it is kept for each round.
        clock: Seconds from any origin.

    Raises:
        EngineError: An engine failed to run.
    """
    if not works:
        raise ValueError("nothing to time")
    if not 1 <= min_rounds <= max_rounds:
        raise ValueError(f"min_rounds is {min_rounds} and max_rounds {max_rounds}, expected 1 <= min_rounds <= max_rounds")
    plain = {name: _plain_run(name, work, stream) for name, work in works.items()}
    enqueue_ms = {name: _enqueue_ms(run, stream, clock) for name, run in plain.items()}
    graphs, reason = _captured(works, stream) if use_graph else ({}, "not asked for")
    try:
        runs = {name: graphs[name].launch for name in works} if graphs else plain
        sizes = {name: _runs_in_sample(run, stream) for name, run in runs.items()}
        start = clock()
        while clock() - start < WARM_UP_SECONDS:
            for name, run in runs.items():
                _sample(run, sizes[name], stream)
        samples, states = _rounds(runs, sizes, stream, seconds, min_rounds, max_rounds, enough, state, clock)
    finally:
        for graph in graphs.values():
            graph.close()
    return {
        name: GpuTiming(
            timing=_timing(samples[name], sizes[name]),
            p90_ms=float(np.percentile(samples[name], 90)),
            p99_ms=float(np.percentile(samples[name], 99)),
            runs_in_sample=sizes[name],
            graph=bool(graphs),
            no_graph_because=reason,
            enqueue_ms=enqueue_ms[name],
            states=states,
        )
        for name in works
    }


def transfers_on_gpu(work: Work, stream: Stream, *, runs: int = 20) -> Transfers:
    """Return the median time of the copies of one batch, each direction by itself, after one uncounted run."""
    directions = []
    for copy in (work.copy_in, work.copy_out):
        found = []
        for _ in range(runs + 1):
            before = stream.record()
            copy(stream)
            after = stream.record()
            after.synchronize()
            found.append(after.ms_since(before))
        directions.append(float(np.median(found[1:])))
    return Transfers(directions[0], directions[1])


def _plain_run(name: str, work: Work, stream: Stream) -> Callable[[], None]:
    def run() -> None:
        if not work.enqueue(stream.handle):
            raise EngineError(f"{name}: the runtime refused to queue a run", fix="see its messages in the log")

    run()
    stream.synchronize()
    return run


def _enqueue_ms(run: Callable[[], None], stream: Stream, clock: Callable[[], float]) -> float:
    found = []
    for _ in range(10):
        start = clock()
        run()
        found.append((clock() - start) * 1e3)
        stream.synchronize()
    return float(np.median(found))


def _captured(works: Mapping[str, Work], stream: Stream) -> tuple[dict[str, Graph], str | None]:
    graphs: dict[str, Graph] = {}
    for name, work in works.items():
        try:
            graphs[name] = stream.capture(work.enqueue)
        except EngineError as error:
            for graph in graphs.values():
                graph.close()
            return {}, f"{name}: {error.detail}"
    return graphs, None


def _runs_in_sample(run: Callable[[], None], stream: Stream) -> int:
    fastest = min(_sample(run, 1, stream) for _ in range(3))
    return max(1, min(_MAX_RUNS_IN_SAMPLE, math.ceil(MIN_SAMPLE_MS / fastest))) if fastest > 0 else _MAX_RUNS_IN_SAMPLE


def _rounds(
    runs: Mapping[str, Callable[[], None]],
    sizes: Mapping[str, int],
    stream: Stream,
    seconds: float,
    min_rounds: int,
    max_rounds: int,
    enough: Enough,
    state: Callable[[], GpuSample | None] | None,
    clock: Callable[[], float],
) -> tuple[dict[str, list[float]], tuple[GpuSample | None, ...]]:
    samples: dict[str, list[float]] = {name: [] for name in runs}
    states: list[GpuSample | None] = []
    order = deque(runs)
    start = clock()
    while len(states) < max_rounds and (len(states) < min_rounds or (clock() - start < seconds and not enough(samples))):
        for name in order:
            samples[name].append(_sample(runs[name], sizes[name], stream))
        order.rotate(1)
        states.append(None if state is None else state())
    return samples, tuple(states)


def _sample(run: Callable[[], None], size: int, stream: Stream) -> float:
    """Return the milliseconds of one of ``size`` runs, after one that is not counted."""
    run()
    before = stream.record()
    for _ in range(size):
        run()
    after = stream.record()
    after.synchronize()
    return after.ms_since(before) / size


def _timing(samples: list[float], size: int) -> Timing:
    values = np.asarray(samples)
    median = float(np.median(values))
    return Timing(
        median_ms=median,
        p95_ms=float(np.percentile(values, 95)),
        mad_ms=float(np.median(np.abs(values - median))),
        runs=len(samples) * size,
        block_ms=tuple(samples),
    )
