"""The stage ``trial``: one assignment becomes an engine, which is scored on every validation sample and timed against the baseline.

It is timed until its ratio to the baseline is known as well as the search needs it (``Deciding``, ``timed_enough.TrialKnown``): an engine
over the budget competes with none, and one that is far from what it competes with is told from it at once. Timing ends with the time that
the search has left, too.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace

from calibration.data.dataset import load_saved
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Engine, Runner
from engine_builder.engines.factory import building_backend
from engine_builder.engines.quantized_engine import CorrectedEngine, EngineRecipe, build_with_bias_correction, legalized
from engine_builder.errors import BuildError, EngineError
from engine_builder.evaluation.measurement import (
    MAX_RUNS,
    MIN_RUNS,
    TRIAL_SECONDS,
    EngineScores,
    ScoredEngine,
    accuracy,
    accuracy_on_search,
    fits,
    keep_layers,
    kept_engine,
    latency_of,
    scored_engine,
    timing_feeds,
    write_achieved,
    write_kernels,
    write_scores,
)
from engine_builder.records.assignment import folded_fingerprint
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import FOLDED, Trial
from engine_builder.stage_io.engines import TrialRequest
from engine_builder.timed_enough import ROUGH, EachKnown, TrialKnown
from engine_builder.timing import WARM_UP_SHARE, Timer, TimingPlan, time_interleaved
from engine_builder.workspace.model_files import model_size_bytes
from engine_builder.workspace.workspace import StageContext

DECIDING_SECONDS = 6.0  # of interleaved runs of an engine and the baseline while their ratio is not known well enough, at most
LEAST_SECONDS = 0.4  # of them, if less is left of the search: nine rounds of fast engines


def trial(request: TrialRequest, context: StageContext, *, timer: Timer = time_interleaved, is_profiled: bool = True) -> Trial:
    """Build, score and time one assignment.

    Where the engine with corrected biases misses the budget and the one without meets it, the latter is the trial's: the correction
    lowers the loss on calibration samples, which need not be what the metric sees.

    Args:
        request: The job and the assignment.
        context: Where files go.
        timer: Times the engine and the baseline.
        is_profiled: Whether to note the kernels of the engine, where the runtime tells them.

    Raises:
        BuildError: The engine cannot be built, or fails when it runs.
    """
    start = time.perf_counter()
    job, workspace = request.job, context.workspace
    for lost in request.beaten:
        workspace.path(kept_name(lost)).unlink(missing_ok=True)
    config = job.config
    inspection = workspace.read_value(Inspection, job.inspection)
    backend = building_backend(config, context)
    fingerprint = job.fingerprint((layer.name for layer in inspection.model.layers), request.precisions, backend.capabilities.baseline)
    if request.proposed_by == FOLDED:
        fingerprint = folded_fingerprint(fingerprint)
    quantized = legalized(inspection, request.precisions, backend, context)
    baseline_path = workspace.path(job.baseline)
    is_baseline = not quantized and request.proposed_by != FOLDED
    if not is_baseline:
        recipe, biases = EngineRecipe(inspection, job.calibrated, quantized), f"trials/{fingerprint}-biases.npz"
        built = build_with_bias_correction(recipe, backend, context.part(0.0, 0.3), biases, threads=config.threads)
    else:
        built = CorrectedEngine(Engine(baseline_path, (), model_size_bytes(baseline_path)))
    built_in = time.perf_counter() - start
    context.progress(0.3, "engine built")
    validation = load_saved(workspace.path(inspection.samples.validation))
    reference = workspace.read_scores(inspection.reference.scores)

    def scored(engine: Engine) -> AbstractContextManager[ScoredEngine]:
        if is_baseline and backend.capabilities.is_own_baseline and inspection.baseline.precision is Precision.FP32:
            # The float model itself, which the stage ``inspect`` has run on every sample.
            return nullcontext(
                ScoredEngine(backend.open(baseline_path, threads=config.threads), EngineScores(reference, are_outputs_equal=True), 0.0)
            )
        return scored_engine(engine.path, inspection, validation, backend, workspace, threads=config.threads)

    try:
        with ExitStack() as opened:
            judged = opened.enter_context(scored(built.engine))
            metric = inspection.reference.metric
            on_all = accuracy(reference, judged.engine, metric, config)
            is_inside = not is_baseline and fits(reference, judged.engine, metric, config, whole=on_all)
            has_time = not backend.capabilities.builds_are_dear or _has_time(request, built_in, time.perf_counter() - start)
            if built.plain is not None and not is_inside and has_time:
                opened.close()  # one engine's memory at a time
                uncorrected = built.plain()
                plain = opened.enter_context(scored(uncorrected))
                plain_on_all = accuracy(reference, plain.engine, metric, config)
                is_inside = fits(reference, plain.engine, metric, config, whole=plain_on_all)
                if is_inside:
                    assert built.correction is not None
                    on_all = plain_on_all
                    judged, built = plain, CorrectedEngine(uncorrected, replace(built.correction, kept=False))
                else:
                    opened.close()
                    again = opened.enter_context(closing(backend.open(built.engine.path, threads=config.threads)))
                    judged = replace(judged, runner=again)
            context.progress(0.7, "accuracy measured")
            runners: dict[str, Runner] = {"engine": judged.runner}
            if not is_baseline:
                runners["baseline"] = backend.open(baseline_path, threads=config.threads)
            feeds = timing_feeds(inspection, validation)
            plan = _plan(request, timer, is_alone=is_baseline, is_inside=is_inside, spent=time.perf_counter() - start)
            timings = backend.timings(runners, feeds, plan)
            for runner in runners.values():  # profiles are taken in sessions of their own: one engine's memory at a time
                runner.close()
            kernels = None
            if is_profiled:
                name = f"trials/{fingerprint}-kernels.json"
                kernels = write_kernels(built.engine.path, feeds, backend, context, name, threads=config.threads)
    except BuildError:
        raise
    except EngineError as error:
        raise BuildError(f"the engine was built but does not run: {error.detail}", fix=error.fix) from error
    return Trial(
        index=request.index,
        fingerprint=fingerprint,
        precisions=quantized,
        order=request.proposed_by,
        low_layers=len(quantized),
        on_all=on_all,
        on_search=accuracy_on_search(reference, judged.engine, metric, config),
        loss=judged.loss,
        latency=latency_of(timings),
        size_bytes=built.engine.size_bytes,
        scores=write_scores(judged.engine, workspace, f"trials/{fingerprint}.npz"),
        seconds=time.perf_counter() - start,
        failure=None,
        bias=built.correction,
        corrections=built.corrections,
        engine=kept_engine(built.engine, backend, context, kept_name(fingerprint)) if not is_baseline else None,
        are_outputs_equal=judged.engine.are_outputs_equal,
        reached=write_achieved(inspection, quantized, built.engine, context, f"trials/{fingerprint}-reached.json"),
        layers=keep_layers(built.engine, context, f"trials/{fingerprint}-layers.json"),
        kernels=kernels,
    )


def kept_name(fingerprint: str) -> str:
    """Return the name of the file in which a trial's engine is kept."""
    return f"trials/{fingerprint}.plan"


def _has_time(request: TrialRequest, built_in: float, spent: float) -> bool:
    """Return whether one more build, as long as the first, ends within the time that the search has left, ``spent`` of it already."""
    return request.seconds_left is None or spent + built_in <= request.seconds_left


def _plan(request: TrialRequest, timer: Timer, *, is_alone: bool, is_inside: bool, spent: float) -> TimingPlan:
    """Return how long to time the engine.

    Args:
        request: What its latency is compared with, and the time that is left.
        timer: Times it.
        is_alone: Whether it is the baseline itself, which is compared with nothing.
        is_inside: Whether it keeps the budget: only then it competes with others.
        spent: Seconds of the stage so far.
    """
    deciding = request.deciding
    enough = EachKnown(ROUGH) if is_alone else TrialKnown(deciding.bounds, deciding.best if is_inside else None)
    most = TRIAL_SECONDS if is_alone else DECIDING_SECONDS
    if request.seconds_left is not None:
        most = max(min(most, request.seconds_left - spent), LEAST_SECONDS)
    return TimingPlan(most, MIN_RUNS, MAX_RUNS, timer, enough, warm_up=min(most, TRIAL_SECONDS) * WARM_UP_SHARE)
