"""Builds, profiles and times the engines of a network, and predicts each by the models of latency.

*Before*: from the float engine, the one with every layer quantized, and the profile of every second layer. *After*: each engine from all
others, its own time and its own profile left out. Both by kernels, and by the elements that are converted, as other targets predict.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.predictions.engines import Mixed, Shape
from benchmarks.predictions.networks import Timed
from calibration.graph.layers import concrete_shapes, find_layers
from calibration.graph_passes.normalize import prepare
from calibration.number_formats.precision import ONNXRUNTIME_CPU_SCHEME, Precision
from calibration.onnx_model.model_io import save_model
from calibration.ranges.collection import collect_ranges
from calibration.ranges.range_table import RangeMethod
from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend
from engine_builder.profiling.borders import borders_between
from engine_builder.profiling.graph_sites import GraphSites
from engine_builder.profiling.kernel_costs import Profile, kernel_costs
from engine_builder.qdq.onnxruntime_dialect import rewrite
from engine_builder.qdq.rules.placement import ranges_of_moved_tensors
from engine_builder.search.search_space import BASELINE
from engine_builder.search.time_model import Timed as TimedEngine
from engine_builder.search.time_model import TimeModel, fit
from engine_builder.search.times.learned_times import fit_learned
from engine_builder.stages.predict import edges_between, gains_from
from engine_builder.timing import relative_latency, time_interleaved

SECONDS_AN_ENGINE = 0.4
MIN_RUNS, MAX_RUNS = 12, 3000
FLOAT_ENGINE, ALL, PROBE = 0, 1, 2  # the first engines of every network


@dataclass(frozen=True, slots=True)
class Row:
    """A mixed engine: what was predicted and what was measured, latencies as ratios to the float engine's."""

    shape: Shape
    quantized: int  # layers
    measured: float
    mad: float
    before: float
    after: float
    error: float  # standard error that ``after`` came with
    elements_before: float
    elements_after: float


@dataclass(frozen=True, slots=True)
class Predicted:
    """The mixed engines of a network."""

    network: str
    layers: int
    float_ms: float
    rows: tuple[Row, ...]

    def median_error(self, of: Callable[[Row], float]) -> float:
        """Return the median of |predicted / measured - 1|.

        Args:
            of: Returns a row's prediction.
        """
        return float(np.median([abs(of(row) / row.measured - 1.0) for row in self.rows]))

    def rank_correlation(self, of: Callable[[Row], float]) -> float:
        """Return Spearman's rank correlation of prediction and measurement.

        Args:
            of: Returns a row's prediction.
        """
        return float(stats.spearmanr([of(row) for row in self.rows], [row.measured for row in self.rows]).statistic)


class Bench:
    """A network whose engines can be built, profiled and timed in a folder."""

    def __init__(self, network: Timed, folder: Path) -> None:
        """Prepare the network and measure its ranges.

        Args:
            network: The network.
            folder: Where engines are written.
        """
        self.model = prepare(network.model).model
        count = len(next(iter(network.samples.values())))
        self._feeds = {name: array[np.arange(network.batch) % count] for name, array in network.samples.items()}
        shapes = {name: array.shape for name, array in self._feeds.items()}
        self.layers = find_layers(self.model, shapes)
        self._folder, self._backend = folder, OrtCpuBackend()
        save_model(self.model, folder / "prepared.onnx")
        table = collect_ranges(folder / "prepared.onnx", self.layers, [dict(network.samples)], method=RangeMethod.MINMAX)
        self._ranges = ranges_of_moved_tensors(self.model, table.ranges)
        found = concrete_shapes(self.model, shapes)
        self.sizes = {name: math.prod(size for size in shape if isinstance(size, int)) for name, shape in found.items()}

    def profiles(self, assignments: Sequence[Sequence[str]]) -> tuple[list[Profile], list[float], float]:
        """Return the profile of each assignment, the deviation of each ratio, and milliseconds of the first, the float engine.

        Args:
            assignments: Names of the quantized layers; the first is empty.
        """
        paths = [self._engine(index, names) for index, names in enumerate(assignments)]
        kernels = [self._backend.kernel_times(path, self._feeds, threads=1, scratch=self._folder) for path in paths]
        runners = [self._backend.open(path, threads=1) for path in paths]
        try:
            calls = {str(index): functools.partial(runner.run, self._feeds) for index, runner in enumerate(runners)}
            seconds = SECONDS_AN_ENGINE * len(calls)
            timings = time_interleaved(calls, seconds=seconds, min_runs=MIN_RUNS, max_runs=MAX_RUNS, compared_by=time.thread_time)
        finally:
            for runner in runners:
                runner.close()
        ratios = [relative_latency(timings[str(index)], timings["0"]) for index in range(len(paths))]
        found = [
            Profile(dict.fromkeys(names, Precision.INT8), ratio.ratio, own)
            for names, ratio, own in zip(assignments, ratios, kernels, strict=True)
        ]
        return found, [ratio.mad for ratio in ratios], timings["0"].median_ms

    def _engine(self, index: int, names: Sequence[str]) -> Path:
        path = self._folder / f"engine{index}.onnx"
        quantized = dict.fromkeys(names, Precision.INT8)
        made = rewrite(self.model, self.layers, quantized, self._ranges, ONNXRUNTIME_CPU_SCHEME) if names else self.model
        save_model(made, path)
        return path


def predicted(name: str, bench: Bench, mixed: Sequence[Mixed]) -> Predicted:
    """Return what the models say of mixed engines, beside what was measured.

    Args:
        name: The network's.
        bench: The network.
        mixed: The engines.
    """
    names = [layer.name for layer in bench.layers]
    profiles, mads, float_ms = bench.profiles([[], names, names[::2], *(one.quantized for one in mixed)])
    sites = GraphSites(bench.model, bench.layers)
    borders = borders_between(bench.model, bench.layers, ONNXRUNTIME_CPU_SCHEME, bench.sizes)
    edges = edges_between(bench.model, bench.layers, ONNXRUNTIME_CPU_SCHEME, bench.sizes)
    untimed = [profiles[FLOAT_ENGINE], profiles[ALL], Profile(profiles[PROBE].quantized, None, profiles[PROBE].kernels)]

    def by_kernels(known: Sequence[Profile]) -> TimeModel:
        return fit_learned(kernel_costs([*untimed, *known], sites, borders, edges), _timed([*untimed, *known])).model()

    def by_elements(known: Sequence[Profile]) -> TimeModel:
        low, high = sites.times(profiles[ALL].kernels), sites.times(profiles[FLOAT_ENGINE].kernels)
        gains = gains_from({layer: {BASELINE: high[layer], Precision.INT8.value: low[layer]} for layer in names})
        return fit(float_ms, gains, edges, _timed([*untimed[:2], *known]))

    before, elements_before = by_kernels(()), by_elements(())
    rows = []
    for place, one in enumerate(mixed):
        own = profiles[3 + place]
        others = [profile for index, profile in enumerate(profiles[3:]) if index != place]
        after = by_kernels(others)
        assert own.ratio is not None
        rows.append(
            Row(
                one.shape,
                len(one.quantized),
                own.ratio,
                mads[3 + place],
                before.ratio(own.quantized),
                after.ratio(own.quantized),
                after.error(own.quantized),
                elements_before.ratio(own.quantized),
                by_elements(others).ratio(own.quantized),
            )
        )
    return Predicted(name, len(names), float_ms, tuple(rows))


def _timed(profiles: Sequence[Profile]) -> list[TimedEngine]:
    return [TimedEngine(profile.quantized, profile.ratio) for profile in profiles if profile.ratio is not None]


def within_two_errors(found: Predicted) -> float:
    """Return the share of engines whose prediction after the refit is within two of its standard errors."""
    inside: NDArray[np.bool_] = np.array([abs(row.after - row.measured) <= 2.0 * row.error for row in found.rows])
    return float(inside.mean())
