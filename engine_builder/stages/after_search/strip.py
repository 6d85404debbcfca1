"""The stage ``strip``: what the verdict keeps is built once more, without its weights, and judged with its weights put back.

The weights come from the explicit model, the file that a user puts them back from. The engine that comes of it is what a user runs, so it
is scored on every validation sample and timed in turns with the whole plan and the baseline: other flags of the builder may mean other
kernels. It ships only where it is as good as the whole plan, and then the result tells what was measured of it:

1. It is inside the accuracy budget, judged together with the other finalists as the verdict did. Where the whole plan ships whatever its
   score (the baseline, or an engine that the user asked for), it scores no worse than the whole one beyond two standard errors.
2. It is not slower than the whole plan by more than 1% and two standard errors, and still worth it beside the baseline.
3. The plan is smaller.

Else the whole plan ships, with the reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.accuracy.metrics import Better
from calibration.accuracy.verdict import AccuracyVerdict
from calibration.data.dataset import load_saved
from engine_builder.backends.base import Backend, Engine, Runner
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.finalist_verdicts import judged_on, scores_of, verdicts_on
from engine_builder.engines.quantized_engine import EXPLICIT_NAME, EngineRecipe, build, recipe_of
from engine_builder.errors import EngineError
from engine_builder.evaluation.measurement import (
    EngineScores,
    keep_layers,
    read_scores,
    scored_engine,
    timing_feeds,
    write_achieved,
    write_scores,
)
from engine_builder.records.inspection import Inspection
from engine_builder.records.stripped_plan import StrippedPlan, WeightsFile
from engine_builder.records.trial import Trial
from engine_builder.search.moves.build_routes import helps
from engine_builder.search.search_space import BASELINE
from engine_builder.search.shipping_rule import is_accurate_enough, is_worth_it
from engine_builder.stage_io.engines import StripRequest, StripResult, VerdictRequest, VerdictResult, is_reached
from engine_builder.stages.verdict import FINAL_SECONDS, MAX_RUNS, MIN_RUNS, WARM_UP_SECONDS, environment, final_latency, layer_times
from engine_builder.timed_enough import TrialKnown
from engine_builder.timing import ERRORS, RelativeLatency, Timer, Timing, TimingPlan, relative_latency, time_interleaved
from engine_builder.workspace.external_files import external_files
from engine_builder.workspace.model_files import keep_model
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace, file_sha256

FOLDER = "stripped"  # in the workspace: the plan, and what its weights are put back from


def strip(
    request: StripRequest, context: StageContext, *, timer: Timer = time_interleaved, building: Building = building_backend
) -> StripResult:
    """Return what ships.

    Args:
        request: What the verdict keeps.
        context: Where files go.
        timer: Times the engines.
        building: Gives the backend.

    Raises:
        BuildError: The plan cannot be built without its weights, or they cannot be put back.
        EngineError: The engine fails when it runs.
    """
    job, trial, workspace = request.job, request.chosen, context.workspace
    inspection = workspace.read_value(Inspection, job.inspection)
    backend = building(job.config, context, final=True, route="" if trial is None else trial.build_route, stripped=True)
    recipe = EngineRecipe(inspection, job.calibrated, {}) if trial is None else recipe_of(trial, inspection, job.calibrated)
    engine = build(recipe, backend, context.part(0.0, 0.5))
    start = time.perf_counter()
    backend.open(engine.path, threads=job.config.threads).close()
    load_seconds = time.perf_counter() - start
    context.progress(0.5, "plan built without its weights, and opened with them")
    found = _measured(engine.path, request, inspection, context, backend, timer)
    answer = _verdict(found.scores, request, inspection, workspace)
    judged = _judged(request, answer, found.timings)
    whole = workspace.path(request.judged.engine or job.baseline)
    plan = StrippedPlan(
        whole_bytes=whole.stat().st_size,
        why_not=None,
        size_bytes=engine.path.stat().st_size,
        weights=_weights(engine.path.with_name(EXPLICIT_NAME)),
        load_seconds=load_seconds,
        relative=_beside_whole(found, judged, request),
        accuracy=answer.engine,
    )
    why_not = _why_larger(plan) or _why_less_accurate(found.scores, judged, request, inspection, workspace)
    why_not = why_not or _why_slower(plan, found.scores, judged, request, backend.capabilities.least_gain)
    if why_not is not None:
        return StripResult(replace(plan, why_not=why_not), request.judged, trial)
    kept = replace(
        judged,
        engine=_kept(engine, workspace),
        explicit=keep_model(engine.path.with_name(EXPLICIT_NAME), f"{FOLDER}/{EXPLICIT_NAME}", workspace),
        environment=environment(job.config, backend),
        profile=layer_times(engine.path, inspection, job, context, backend),
    )
    layers = keep_layers(engine, context, f"{FOLDER}/engine.layers.json")
    chosen = None if trial is None else _as_shipped(trial, found.scores, engine, layers, inspection, context)
    return StripResult(replace(plan, layers=layers), kept, chosen)


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """The engine with its weights put back."""

    scores: EngineScores
    timings: Mapping[str, Timing]  # of "engine", of the baseline and, where there was room for all three, of "whole", in turns


def _measured(
    path: Path, request: StripRequest, inspection: Inspection, context: StageContext, backend: Backend, timer: Timer
) -> _Measured:
    """Return the scores of the engine, and its timing beside the whole plan and the baseline."""
    job, workspace = request.job, context.workspace
    validation, threads = load_saved(workspace.path(inspection.samples.validation)), job.config.threads
    others = {BASELINE: job.baseline}
    if request.judged.engine is not None:
        others["whole"] = request.judged.engine
    with scored_engine(path, inspection, validation, backend, workspace, threads=threads) as scored, ExitStack() as opened:
        context.progress(0.8, "accuracy measured")
        runners: dict[str, Runner] = {"engine": scored.runner}
        for name, plan in others.items():
            try:
                runners[name] = opened.enter_context(closing(backend.open(workspace.path(plan), threads=threads)))
            except EngineError:
                if name == BASELINE:
                    raise
                context.progress(0.8, "no room for the whole plan beside the others")
        enough = TrialKnown((), 1.0, baseline="whole" if "whole" in runners else BASELINE)
        how = TimingPlan(FINAL_SECONDS, MIN_RUNS, MAX_RUNS, timer, enough, WARM_UP_SECONDS)
        timings = backend.timings(runners, timing_feeds(inspection, validation), how)
    return _Measured(scored.engine, timings)


def _beside_whole(found: _Measured, judged: VerdictResult, request: StripRequest) -> RelativeLatency:
    """Return the engine's latency to that of the whole plan; where they were not timed together, by the baseline, which both were."""
    timings, trial = found.timings, request.chosen
    if trial is None or "whole" in timings:
        return relative_latency(timings["engine"], timings["whole" if trial is not None else BASELINE])
    engine, whole = judged.spread[trial.fingerprint], request.judged.spread[trial.fingerprint]
    ratio = engine.ratio / whole.ratio
    mad = math.hypot(engine.mad / engine.ratio, whole.mad / whole.ratio)
    error = math.hypot(engine.error / engine.ratio, whole.error / whole.ratio)
    return RelativeLatency(ratio, ratio * mad, ratio * error)


def _verdict(scores: EngineScores, request: StripRequest, inspection: Inspection, workspace: Workspace) -> AccuracyVerdict:
    """Return the verdict on the engine, beside the finalists that the whole one was chosen from."""
    trial = request.chosen
    wanted = VerdictRequest(request.job, request.finalists, request.selection, most_timed=1, tried=1 if trial is None else request.tried)
    if trial is None:
        return verdicts_on([scores], inspection, wanted, workspace)[0]
    names = [one.fingerprint for one in request.finalists if one.scores is not None]
    beside = [
        scores if one.fingerprint == trial.fingerprint else scores_of(one, inspection, workspace)
        for one in request.finalists
        if one.scores is not None
    ]
    return verdicts_on(beside, inspection, wanted, workspace)[names.index(trial.fingerprint)]


def _judged(request: StripRequest, answer: AccuracyVerdict, timings: Mapping[str, Timing]) -> VerdictResult:
    """Return the verdict with what was measured of the engine in the place of what was measured of the whole plan."""
    before, trial = request.judged, request.chosen
    waited = max((timing.waited for timing in timings.values() if timing.waited is not None), default=before.waited)
    own = final_latency(timings["engine"])
    if trial is None:
        latency = {**before.latency_ms, BASELINE: own}
        return replace(before, verdict=answer, latency_ms=latency, baseline_accuracy=answer.engine, waited=waited)
    name, relative = trial.fingerprint, relative_latency(timings["engine"], timings[BASELINE])
    return replace(
        before,
        judged=tuple(replace(one, verdict=answer) if one.fingerprint == name else one for one in before.judged),
        verdict=answer,
        ratio=relative.ratio,
        latency_ms={**before.latency_ms, name: own, BASELINE: final_latency(timings[BASELINE])},
        spread={**before.spread, name: relative},
        waited=waited,
    )


def _why_larger(plan: StrippedPlan) -> str | None:
    """Return why rule 3 keeps the whole plan, None where it does not."""
    assert plan.size_bytes is not None  # it was built
    if plan.size_bytes < plan.whole_bytes:
        return None
    return f"without its weights the plan is no smaller: it has {plan.size_bytes:,} bytes, the whole one {plan.whole_bytes:,}"


def _why_less_accurate(
    scores: EngineScores, judged: VerdictResult, request: StripRequest, inspection: Inspection, workspace: Workspace
) -> str | None:
    """Return why rule 1 keeps the whole plan, None where it does not."""
    config, trial = request.job.config, request.chosen
    after, before = judged.verdict.engine, request.judged.verdict.engine
    score = f"with its weights put back the engine scores {after:.5g}, with the whole plan {before:.5g}"
    if trial is not None and not config.assignment_only:
        is_inside = is_accurate_enough(judged.verdict, config.accuracy.confidence)
        return None if is_inside else f"{score}, and is outside the accuracy budget"
    metric = inspection.reference.metric
    own = read_scores(inspection.baseline.scores, workspace, metric) if trial is None else scores_of(trial, inspection, workspace)
    used = judged_on(VerdictRequest(request.job, request.finalists, request.selection, most_timed=1), len(own.scores))
    lost = (own.scores - scores.scores)[used] * (1.0 if metric.spec.better is Better.HIGHER else -1.0)
    error = float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else 0.0
    return None if float(lost.mean()) <= ERRORS * error else score  # a score that is no number is a loss


def _why_slower(plan: StrippedPlan, scores: EngineScores, judged: VerdictResult, request: StripRequest, least_gain: float) -> str | None:
    """Return why rule 2 keeps the whole plan, None where it does not."""
    config, trial, beside = request.job.config, request.chosen, plan.relative
    assert beside is not None  # it was timed
    if helps(RelativeLatency(1.0 / beside.ratio, beside.mad, beside.error / beside.ratio**2)):  # the whole plan, over it
        return f"with its weights put back the engine takes {beside.ratio:.3f} times as long as with the whole plan"
    if trial is None or config.assignment_only:
        return None
    spread = judged.spread[trial.fingerprint]
    if not is_worth_it(spread, are_outputs_equal=scores.are_outputs_equal, least_gain=least_gain):
        return f"with its weights put back the engine takes {spread.ratio:.3f} of the baseline's time, which is not worth it"
    if config.objective is not None and not is_reached(config.objective, judged):
        return f"with its weights put back the engine is not one that {config.objective.in_words}"
    return None


def _kept(engine: Engine, workspace: Workspace) -> FileRef:
    for file in engine.data_files:
        workspace.copy(file, f"{FOLDER}/{file.name}")
    return workspace.copy(engine.path, f"{FOLDER}/{engine.path.name}")


def _weights(explicit: Path) -> tuple[WeightsFile, ...]:
    files = (explicit, *(explicit.with_name(name) for name in external_files(explicit)))
    return tuple(WeightsFile(file.name, file_sha256(file), file.stat().st_size) for file in files)


def _as_shipped(
    trial: Trial, scores: EngineScores, engine: Engine, layers: FileRef | None, inspection: Inspection, context: StageContext
) -> Trial:
    return replace(
        trial,
        scores=write_scores(scores, context.workspace, f"{FOLDER}/scores.npz"),
        are_outputs_equal=scores.are_outputs_equal,
        reached=write_achieved(inspection, trial.precisions, engine, context, f"{FOLDER}/reached.json") or trial.reached,
        layers=layers or trial.layers,
    )
