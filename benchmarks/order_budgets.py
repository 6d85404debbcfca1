"""How far into each order a budget lets the search go: moves inside it, and the latency of the network that they make.

The budget is on agreement with the float network's first class on the held-out pictures, and the deepest prefix that meets it counts, as
if every prefix had been tried. Latency is that of the time model for every draw, fitted as a job does to the profiles of the float and
the all-quantized network, and measured for the networks of the first draw: all of them and the float one in turns, in one process.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.order_judging import HeldOut, Judged, quantized_network
from benchmarks.order_measurements import BATCH, SCHEME, Draw, Network, Pictures
from calibration.graph.layers import concrete_shapes
from calibration.number_formats.layer_precision import LayerPrecision
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.profiling.layer_times import layer_times
from engine_builder.search.loss_model import LossModel
from engine_builder.search.predicted_front import frontier
from engine_builder.search.search_space import BASELINE, QuantizedLayers
from engine_builder.search.time_model import Timed, TimeModel, fit
from engine_builder.stages.predict import edges_between, gains_from
from engine_builder.timing import Timing, relative_latency, time_interleaved

BUDGETS = (0.99, 0.999, 0.9999)
SECONDS_A_NETWORK = 1.0
MIN_RUNS, MAX_RUNS = 45, 3000
FLOAT = "float"


@dataclass(frozen=True, slots=True)
class Deepest:
    """The deepest network of an order inside a budget, on one draw."""

    quantized: tuple[LayerPrecision, ...]  # none: the float network
    predicted: float | None  # latency over the float network's; None where no time is known


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """An order under a budget, over all draws or seeds."""

    order: str
    budget: float
    moves: tuple[int, ...]
    predicted: tuple[float, ...]
    engine: str | None  # of the first draw; None where no time is known


def deepest(judged: Sequence[Judged], budget: float) -> int:
    """Return how many moves of an order the deepest prefix inside a budget has, 0 if none is inside."""
    return max((moves for moves, found in enumerate(judged, start=1) if found.agreement >= budget), default=0)


def deepest_prefixes(order: Sequence[LayerPrecision], judged: Sequence[Judged], times: TimeModel | None) -> list[Deepest]:
    """Return the deepest prefix of an order inside each of the BUDGETS.

    Args:
        order: The order.
        judged: What each prefix does.
        times: Predicts latency, where that is known.
    """
    found = []
    for budget in BUDGETS:
        quantized = tuple(order[: deepest(judged, budget)])
        found.append(Deepest(quantized, times.ratio(precisions(quantized)) if times is not None else None))
    return found


def best_of_frontier(losses: LossModel, times: TimeModel, judge: HeldOut, draw: Draw) -> list[Deepest]:
    """Return the assignment of the predicted frontier with the lowest predicted latency inside each of the BUDGETS."""
    bound = losses.upper_bound
    points = frontier(losses.layer_precisions, bound.loss, bound.interaction, times)
    met = [(point, judge.of(point.quantized, draw).agreement) for point in points]
    found = []
    for budget in BUDGETS:
        inside = [point for point, agreement in met if agreement >= budget]
        best = min(inside, key=lambda point: point.ratio, default=None)
        found.append(Deepest((), 1.0) if best is None else Deepest(tuple(sorted(best.quantized)), best.ratio))
    return found


def precisions(quantized: Sequence[LayerPrecision]) -> QuantizedLayers:
    """Return the assignment that layer precisions make, one a layer."""
    return {layer_precision.layer: layer_precision.precision for layer_precision in quantized}


def measured_times(
    network: Network, layer_precisions: Sequence[LayerPrecision], draw: Draw, pictures: Pictures, scratch: Path
) -> TimeModel:
    """Return the time model of a job before any mixed engine was timed: from the profiles of the float and the all-quantized network.

    Args:
        network: The network.
        layer_precisions: All of them, one a layer.
        draw: Of which the all-quantized network is made.
        pictures: At least BATCH of them, (n, ...) float32.
        scratch: A folder.
    """
    backend = OrtCpuBackend()
    feeds = {network.input: pictures[:BATCH]}
    kernels: dict[str, dict[str, float]] = {layer.name: {} for layer in network.layers}
    all_quantized = layer_precisions[0].precision.value
    models = {BASELINE: network.model, all_quantized: quantized_network(network, layer_precisions, draw)}
    for name, model in models.items():
        path = scratch / f"{network.name}-{name}.onnx"
        onnx.save_model(model, path)
        found = layer_times(network.layers, backend.kernel_times(path, feeds, threads=1, scratch=scratch))
        for layer, milliseconds in found.items():
            kernels[layer][name] = milliseconds
    timings = timed({name: scratch / f"{network.name}-{name}.onnx" for name in models}, feeds)
    shapes = concrete_shapes(network.model, {network.input: feeds[network.input].shape})
    sizes = {name: math.prod(size for size in shape if isinstance(size, int)) for name, shape in shapes.items()}
    edges = edges_between(network.model, network.layers, SCHEME, sizes)
    ratio = relative_latency(timings[all_quantized], timings[BASELINE]).ratio
    trials = [Timed({}, 1.0), Timed(precisions(layer_precisions), ratio)]
    return fit(timings[BASELINE].median_ms, gains_from(kernels), edges, trials)


def timed(engines: Mapping[str, Path], feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, Timing]:
    """Return the timing of each engine, all in turns in this process, one thread.

    Args:
        engines: Explicit models by name.
        feeds: The timed call.
    """
    backend = OrtCpuBackend()
    with contextlib.ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        for name, path in engines.items():
            runner = backend.open(path, threads=1)
            stack.callback(runner.close)
            calls[name] = functools.partial(runner.run, feeds)
        seconds = SECONDS_A_NETWORK * len(calls)
        return time_interleaved(calls, seconds=seconds, min_runs=MIN_RUNS, max_runs=MAX_RUNS, compared_by=time.thread_time)
