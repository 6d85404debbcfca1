"""The profiles that trials left, and that of one engine more: every second layer quantized.

In that engine most tensors between layers are converted and most kernels run between others that are not as they are, so that what borders
cost is read off this model's own tensors before any engine with borders was tried. It is built and profiled, neither scored nor timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from calibration.data.dataset import load_saved
from engine_builder.backends.base import Backend
from engine_builder.backends.kernels import KernelTime
from engine_builder.engines.quantized_engine import EngineRecipe, build, legalized
from engine_builder.errors import EngineError
from engine_builder.evaluation.measurement import timing_feeds, write_kernels
from engine_builder.profiling.borders import borders_between
from engine_builder.profiling.graph_sites import GraphSites
from engine_builder.profiling.kernel_costs import Profile, kernel_costs
from engine_builder.profiling.profiles import Kernels
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.search.search_space import BASELINE, is_one_format
from engine_builder.search.time_model import TensorEdge
from engine_builder.search.times.learned_times import KernelCosts
from engine_builder.stage_io.engines import EngineJob, ProfiledEngine
from engine_builder.workspace.workspace import StageContext, Workspace

PROBE = "predict/probe"


def probed(
    job: EngineJob, inspection: Inspection, trials: Sequence[Trial], backend: Backend, context: StageContext
) -> ProfiledEngine | None:
    """Return the profile of the engine with every second layer quantized; None where it does not build or run, or is no other engine.

    Args:
        job: The job.
        inspection: Its inspection.
        trials: So far; the layers are those of the first one-format engine.
        backend: The job's target.
        context: Where the engine is built.
    """
    every = next((trial.precisions for trial in trials if is_one_format(trial.order)), {})
    names = [layer.name for layer in inspection.model.layers if layer.name in every]
    quantized = legalized(inspection, {name: every[name] for name in names[::2]}, backend, context)
    if not quantized or len(quantized) == len(every):
        return None
    feeds = timing_feeds(inspection, load_saved(context.workspace.path(inspection.samples.validation)))
    folder = context.scratch / "probe"
    folder.mkdir()
    try:
        engine = build(EngineRecipe(inspection, job.calibrated, quantized), backend, replace(context, scratch=folder))
        found = {"": engine.path, "-baseline": context.workspace.path(job.baseline)}
        kernels = {
            name: write_kernels(path, feeds, backend, context, f"{PROBE}{name}-kernels.json", threads=job.config.threads)
            for name, path in found.items()
        }
    except EngineError as error:
        context.progress(0.5, f"no profile of every second layer quantized: {error.detail}")
        return None
    own, baseline = kernels[""], kernels["-baseline"]
    return None if own is None or baseline is None else ProfiledEngine(quantized, own, baseline)


def profiles_of(trials: Sequence[Trial], probe: ProfiledEngine | None, workspace: Workspace) -> tuple[Profile, ...]:
    """Return the profiles of all timed trials and of the probe, the baseline's first; empty where the baseline has none.

    Args:
        trials: So far.
        probe: The engine that was profiled besides.
        workspace: Where profiles are.
    """
    timed = [(trial, trial.latency.ratio, trial.kernels) for trial in trials if trial.latency is not None and trial.kernels is not None]
    found = [Profile(trial.precisions, ratio, workspace.read_value(tuple[KernelTime, ...], kernels)) for trial, ratio, kernels in timed]
    if not found or found[0].quantized:
        return ()
    if probe is not None:
        own, baseline = (workspace.read_value(tuple[KernelTime, ...], kernels) for kernels in (probe.kernels, probe.baseline))
        # The machine may have been slower or faster when the trials were profiled.
        scale = _sum(found[0].kernels) / max(_sum(baseline), 1e-9)
        kernels = tuple(replace(kernel, milliseconds=kernel.milliseconds * scale) for kernel in own)
        found.append(Profile(probe.precisions, None, kernels))
    return tuple(found)


def costs_of(
    profiles: Sequence[Profile], model: onnx.ModelProto, inspection: Inspection, edges: Sequence[TensorEdge], sizes: dict[str, int]
) -> KernelCosts:
    """Return what the profiles say of any engine.

    Args:
        profiles: The baseline's first.
        model: The prepared model.
        inspection: The job's.
        edges: The tensors between layers.
        sizes: Elements of each tensor in one timed call.
    """
    layers = inspection.model.layers
    borders = borders_between(model, layers, inspection.model.scheme, sizes)
    return kernel_costs(profiles, GraphSites(model, layers), borders, edges)


def kernels_of(profiles: Sequence[Profile], trials: Sequence[Trial], model: onnx.ModelProto, inspection: Inspection) -> Kernels:
    """Return each layer's milliseconds in the baseline engine and in the one-format engines, as they were profiled.

    Args:
        profiles: The baseline's first.
        trials: So far.
        model: The prepared model.
        inspection: The job's.
    """
    sites = GraphSites(model, inspection.model.layers)
    uniform = [dict(trial.precisions) for trial in trials if is_one_format(trial.order)]
    high = sites.times(profiles[0].kernels)
    found: Kernels = {}
    for profile in profiles[1:]:
        if dict(profile.quantized) in uniform and profile.ratio is not None:
            times = sites.times(profile.kernels)
            for layer, precision in profile.quantized.items():
                found.setdefault(layer, {BASELINE: high[layer]}).setdefault(precision.value, times[layer])
    return found


def _sum(kernels: Sequence[KernelTime]) -> float:
    return sum(kernel.milliseconds for kernel in kernels)
