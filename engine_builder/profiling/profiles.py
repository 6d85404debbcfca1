"""What each layer takes in the baseline engine and in the one-format engines, from profiles of both.

Where a kernel runs several layers that multiply, a profile cannot tell which of them gains. *Group-difference engines* do: the one-format
engine with some of those layers left at the baseline, timed in turns with the one-format engine; what it takes longer is what these layers
gain, all others quantized, and it is split among them by their multiply-accumulates. Such a region is cut into a few consecutive parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.data.dataset import load_saved
from calibration.graph.layers import Layer
from engine_builder.backends.base import Backend, Runner
from engine_builder.backends.kernels import KernelTime
from engine_builder.engines.quantized_engine import EngineRecipe, build, recipe_of
from engine_builder.errors import BuildError, EngineError
from engine_builder.evaluation.measurement import timing_feeds
from engine_builder.profiling.layer_times import Groups, layer_times, parts, unresolved
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.search.search_space import BASELINE, is_one_format
from engine_builder.stage_io.engines import EngineJob
from engine_builder.timing import TimingPlan, time_interleaved
from engine_builder.workspace.workspace import StageContext

MOST_PARTS = 6  # group-difference engines of one precision: each is a build
LEAST_SHARE = 0.1  # of the engine's time, for kernels of several layers to be worth telling apart
SECONDS = 3.0  # of interleaved runs of a precision's group-difference engines
MIN_RUNS, MAX_RUNS = 12, 2000
MOST_SECONDS = 1800.0  # for group-difference engines: a stage may take an hour, and leaves nothing where it takes longer
ONE_FORMAT = "one format"

# Milliseconds of each layer: under BASELINE in the baseline engine, under each precision in its one-format engine.
Kernels = dict[str, dict[str, float]]


def profiled(
    job: EngineJob,
    inspection: Inspection,
    trials: Sequence[Trial],
    backend: Backend,
    context: StageContext,
    together: Groups,
    *,
    seconds_left: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Kernels:
    """Return each layer's time in all of those engines; a layer that the runtime fused into another has 0 in that engine.

    Args:
        job: The job.
        inspection: Its inspection.
        trials: So far; the one-format engines among them that were timed are built again, unless they were kept.
        backend: The job's target.
        context: Where engines are built.
        together: Layers that take a precision together or not at all, and need not be told apart.
        seconds_left: No group-difference engine is built that would not fit in, by what builds took so far; at most ``MOST_SECONDS``.
        clock: Seconds from any origin.
    """
    room = _Room(clock, clock() + min(MOST_SECONDS, MOST_SECONDS if seconds_left is None else seconds_left))
    threads = job.config.threads
    feeds = timing_feeds(inspection, load_saved(context.workspace.path(inspection.samples.validation)))

    def profile(engine: Path) -> tuple[KernelTime, ...]:
        return backend.kernel_times(engine, feeds, threads=threads, scratch=context.scratch)

    baseline = profile(context.workspace.path(job.baseline))
    high = layer_times(inspection.model.layers, baseline)
    kernels: Kernels = {}
    for trial in trials:
        if not is_one_format(trial.order) or trial.latency is None:
            continue
        recipe = recipe_of(trial, inspection, job.calibrated)
        engine = context.workspace.path(trial.engine) if trial.engine is not None else build(recipe, backend, context).path
        times = profile(engine)
        quantized = layer_times(inspection.model.layers, times)
        shared = groups_to_time(inspection.model.layers, (baseline, times), trial.precisions, together)
        if shared and room.has_room(trial.seconds):
            engines = {ONE_FORMAT: engine} | _without(shared, recipe, backend, context, trial, room)
            taken = _timed(engines, feeds, backend, threads, context)
            quantized |= {name: high[name] - gain for name, gain in gains_of_parts(shared, taken, inspection.model.layers).items()}
        for name, precision in trial.precisions.items():
            kernels.setdefault(name, {BASELINE: high[name]}).setdefault(precision.value, quantized[name])
    return kernels


def groups_to_time(
    layers: Sequence[Layer], profiles: Sequence[Sequence[KernelTime]], quantized: Collection[str], together: Groups
) -> Groups:
    """Return the parts of regions that a profile does not resolve, each of which needs an engine of its own.

    Args:
        layers: The model's layers.
        profiles: Of the baseline and of the one-format engine.
        quantized: The layers that are quantized in the one-format engine.
        together: Layers that are chosen for together: a region within one of those needs no telling apart.
    """
    regions = dict.fromkeys(region for kernels in profiles for region in unresolved(layers, kernels, LEAST_SHARE))
    joined: list[set[str]] = []
    for region in regions:  # the two engines may fuse differently
        members = {name for name in region if name in quantized}
        for other in [known for known in joined if known & members]:
            joined.remove(other)
            members |= other
        joined.append(members)
    wanted = [members for members in joined if len(members) > 1 and not any(members <= set(group) for group in together)]
    macs = {layer.name: layer.macs for layer in layers}
    return parts(tuple(tuple(name for name in macs if name in members) for members in wanted), macs, MOST_PARTS)


def gains_of_parts(shared: Groups, taken: Mapping[str, float], layers: Sequence[Layer]) -> dict[str, float]:
    """Return what each layer of the parts gains, in milliseconds.

    Args:
        shared: The parts.
        taken: Milliseconds of the one-format engine under ``ONE_FORMAT``, and of the one without a part under the part's first layer; a
            part whose engine could not be built is missing.
        layers: The model's layers.
    """
    macs = {layer.name: layer.macs for layer in layers}
    gains = {}
    for part in shared:
        if part[0] in taken:
            gain, total = taken[part[0]] - taken[ONE_FORMAT], sum(macs[name] for name in part)
            gains.update({name: gain * macs[name] / total for name in part})
    return gains


class _Room:
    """The time that is left for builds, and how long they take."""

    def __init__(self, clock: Callable[[], float], until: float) -> None:
        self.clock, self._until = clock, until
        self._longest: float | None = None  # of the builds so far

    def has_room(self, guess: float) -> bool:
        """Return whether one more build fits in; ``guess`` is what it takes where none was made yet."""
        return self.clock() + (guess if self._longest is None else self._longest) <= self._until

    def took(self, seconds: float) -> None:
        """Note what a build took."""
        self._longest = max(seconds, self._longest or 0.0)


def _without(shared: Groups, recipe: EngineRecipe, backend: Backend, context: StageContext, trial: Trial, room: _Room) -> dict[str, Path]:
    """Return the group-difference engines by the first layer of the part that each leaves at the baseline, as far as there is time."""
    engines: dict[str, Path] = {}
    for index, part in enumerate(shared):
        if not room.has_room(trial.seconds):
            context.progress(0.5, f"{len(shared) - index} group-difference engines are not built: they would take longer than is left")
            break
        folder, start = context.scratch / f"part{index}-{trial.fingerprint}", room.clock()
        folder.mkdir()
        left = {layer: precision for layer, precision in recipe.precisions.items() if layer not in part}
        try:
            engine = build(replace(recipe, precisions=left), backend, replace(context, scratch=folder))
        except BuildError:
            context.progress(0.5, f"no engine without {part[0]} and the {len(part) - 1} layers that share its kernel: it does not build")
            continue
        finally:
            room.took(room.clock() - start)
        engines[part[0]] = engine.path
        context.progress(0.5, f"group-difference engine {index + 1} of {len(shared)} built")
    return engines


def _timed(
    engines: Mapping[str, Path], feeds: Mapping[str, NDArray[np.generic]], backend: Backend, threads: int, context: StageContext
) -> dict[str, float]:
    """Return milliseconds of engines that are timed in turns, none where they do not all run: then kernels are split by work alone."""
    runners: dict[str, Runner] = {}
    try:
        for name, engine in engines.items():
            runners[name] = backend.open(engine, threads=threads)
        timings = backend.timings(runners, feeds, TimingPlan(SECONDS, MIN_RUNS, MAX_RUNS, time_interleaved))
    except EngineError as error:
        context.progress(0.5, f"group-difference engines do not run: {error.detail}")
        return {}
    finally:
        for runner in runners.values():
            runner.close()
    return {name: timing.median_ms for name, timing in timings.items()}
