"""The stage ``trial``: one assignment becomes an engine, which is scored on every validation sample and timed against the baseline.

It is timed until its ratio to the baseline is known as well as the search needs it (``Deciding``, ``timed_enough.TrialKnown``): an engine
over the budget competes with none, and one that is far from what it competes with is told from it at once. Timing ends with the time that
the search has left, too.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from calibration.data.dataset import load_saved
from engine_builder.backends.base import Runner
from engine_builder.engines.candidates.scored_candidate import Candidate, failing_as_build, is_usable, reopened, scored_candidate
from engine_builder.engines.factory import building_backend
from engine_builder.engines.quantized_engine import legalized
from engine_builder.evaluation.measurement import (
    MAX_RUNS,
    MIN_RUNS,
    TRIAL_SECONDS,
    kept_engine,
    latency_of,
    timing_feeds,
    write_kernels,
)
from engine_builder.records.assignment import folded_fingerprint
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import FOLDED, Trial
from engine_builder.stage_io.engines import TrialRequest
from engine_builder.timed_enough import ROUGH, EachKnown, TrialKnown
from engine_builder.timing import WARM_UP_SHARE, Timer, TimingPlan, time_interleaved
from engine_builder.workspace.workspace import StageContext

DECIDING_SECONDS = 6.0  # of interleaved runs of an engine and the baseline while their ratio is not known well enough, at most
LEAST_SECONDS = 0.4  # of them, if less is left of the search: nine rounds of fast engines


def trial(request: TrialRequest, context: StageContext, *, timer: Timer = time_interleaved, is_profiled: bool = True) -> Trial:
    """Build, score and time one assignment; an engine that was built and scored before is only timed.

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
    config, prepared = job.config, request.prepared
    inspection = workspace.read_value(Inspection, job.inspection)
    backend = building_backend(config, context)
    fingerprint = job.fingerprint((layer.name for layer in inspection.model.layers), request.precisions, backend.capabilities.baseline)
    if request.proposed_by == FOLDED:
        fingerprint = folded_fingerprint(fingerprint)
    validation = load_saved(workspace.path(inspection.samples.validation))
    prefix = f"trials/{fingerprint}"

    def has_time(built_in: float, spent: float) -> bool:
        return not backend.capabilities.builds_are_dear or _has_time(request, built_in, spent)

    with ExitStack() as opened:
        found = None
        if prepared is not None and is_usable(prepared, backend, context, request.seconds_left):
            found = reopened(prepared, backend, context, opened, prefix, threads=config.threads)
        if prepared is not None and found is not None:
            start -= prepared.seconds  # so that a search with a limit tries what it would have tried
        else:
            quantized = legalized(inspection, request.precisions, backend, context)
            candidate = Candidate(job, inspection, quantized, is_baseline=not quantized and request.proposed_by != FOLDED)
            found = scored_candidate(candidate, backend, validation, context, opened, prefix, start=start, has_time=has_time)
        is_baseline = not found.precisions and request.proposed_by != FOLDED
        opened.enter_context(failing_as_build())
        runners: dict[str, Runner] = {"engine": found.runner}
        if not is_baseline:
            runners["baseline"] = backend.open(workspace.path(job.baseline), threads=config.threads)
        feeds = timing_feeds(inspection, validation)
        spent = time.perf_counter() - start
        plan = _plan(request, timer, is_alone=is_baseline, is_inside=found.is_inside, spent=spent)
        timings = backend.timings(runners, feeds, plan)
        for runner in runners.values():  # profiles are taken in sessions of their own: one engine's memory at a time
            runner.close()
        kernels = None
        if is_profiled:
            name = f"{prefix}-kernels.json"
            kernels = write_kernels(found.engine.path, feeds, backend, context, name, threads=config.threads)
    return Trial(
        index=request.index,
        fingerprint=fingerprint,
        precisions=found.precisions,
        order=request.proposed_by,
        low_layers=len(found.precisions),
        on_all=found.on_all,
        on_search=found.on_search,
        loss=found.loss,
        latency=latency_of(timings),
        size_bytes=found.engine.size_bytes,
        scores=found.scores,
        seconds=time.perf_counter() - start,
        failure=None,
        bias=found.bias,
        corrections=found.corrections,
        engine=kept_engine(found.engine, backend, context, kept_name(fingerprint)) if not is_baseline else None,
        are_outputs_equal=found.are_outputs_equal,
        reached=found.reached,
        layers=found.layers,
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
