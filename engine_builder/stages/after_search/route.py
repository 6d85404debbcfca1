"""The stage ``route``: an engine of the search is built again by a build route, scored, and timed in turns with that engine.

Its precisions and its corrections are those of the engine it came from, but a route may choose other kernels, which round in other places:
it is judged by its own scores, with the user's metric. Its file is kept only where it may ship.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from calibration.data.dataset import load_saved
from engine_builder.backends.base import Runner
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.quantized_engine import build, recipe_of
from engine_builder.errors import BuildError, EngineError
from engine_builder.evaluation.measurement import (
    MAX_RUNS,
    MIN_RUNS,
    TRIAL_SECONDS,
    accuracy,
    accuracy_on_search,
    fits,
    keep_layers,
    kept_engine,
    latency_of,
    scored_engine,
    timing_feeds,
    write_achieved,
    write_scores,
)
from engine_builder.records.build_route import ROUTE, routed_fingerprint
from engine_builder.records.inspection import Inspection
from engine_builder.search.moves.build_routes import helps
from engine_builder.stage_io.engines import RouteRequest, RouteResult
from engine_builder.timed_enough import TrialKnown
from engine_builder.timing import WARM_UP_SHARE, Timer, TimingPlan, relative_latency, time_interleaved
from engine_builder.workspace.workspace import StageContext

TIMED_SECONDS = 6.0  # of interleaved runs of the engine, the one it came from and the baseline, at most


def route(
    request: RouteRequest, context: StageContext, *, timer: Timer = time_interleaved, building: Building = building_backend
) -> RouteResult:
    """Return what came of the route.

    Args:
        request: The job, the engine and the route.
        context: Where files go.
        timer: Times the engines.
        building: Gives the backend.

    Raises:
        BuildError: The builder does not take the route, or what it built does not run.
    """
    with _ended_after(request.most_seconds):
        return _route(request, context, timer, building)


def _route(request: RouteRequest, context: StageContext, timer: Timer, building: Building) -> RouteResult:
    start = time.perf_counter()
    job, origin, workspace = request.job, request.origin, context.workspace
    config = job.config
    assert origin.engine is not None  # who asks knows that it was kept
    inspection = workspace.read_value(Inspection, job.inspection)
    backend = building(config, context, route=request.route)
    recipe = replace(recipe_of(origin, inspection, job.calibrated), build_route=request.route)
    engine = build(recipe, backend, context.part(0.0, 0.5))
    context.progress(0.5, "engine built")
    validation = load_saved(workspace.path(inspection.samples.validation))
    reference, metric = workspace.read_scores(inspection.reference.scores), inspection.reference.metric
    try:
        with scored_engine(engine.path, inspection, validation, backend, workspace, threads=config.threads) as scored:
            context.progress(0.8, "accuracy measured")
            found, loss = scored.engine, scored.loss
            runners: dict[str, Runner] = {"engine": scored.runner}
            with (
                closing(backend.open(workspace.path(origin.engine), threads=config.threads)) as before,
                closing(backend.open(workspace.path(job.baseline), threads=config.threads)) as baseline,
            ):
                enough = TrialKnown((), 1.0, baseline="origin")  # faster or not, and if so by how much
                plan = TimingPlan(TIMED_SECONDS, MIN_RUNS, MAX_RUNS, timer, enough, warm_up=TRIAL_SECONDS * WARM_UP_SHARE)
                timings = backend.timings({**runners, "origin": before, "baseline": baseline}, timing_feeds(inspection, validation), plan)
    except BuildError:
        raise
    except EngineError as error:
        raise BuildError(f"the engine was built but does not run: {error.detail}", fix=error.fix) from error
    relative = relative_latency(timings["engine"], timings["origin"])
    on_all = accuracy(reference, found, metric, config)
    may_ship = helps(relative) and fits(reference, found, metric, config, whole=on_all)
    fingerprint = routed_fingerprint(origin.fingerprint, request.route)
    trial = replace(
        origin,
        index=request.index,
        fingerprint=fingerprint,
        order=ROUTE,
        on_all=on_all,
        on_search=accuracy_on_search(reference, found, metric, config),
        loss=loss,
        latency=latency_of(timings),
        size_bytes=engine.size_bytes,
        scores=write_scores(found, workspace, f"trials/{fingerprint}.npz"),
        seconds=time.perf_counter() - start,
        engine=kept_engine(engine, backend, context, f"trials/{fingerprint}.plan") if may_ship else None,
        are_outputs_equal=found.are_outputs_equal,
        reached=write_achieved(inspection, origin.precisions, engine, context, f"trials/{fingerprint}-reached.json"),
        layers=keep_layers(engine, context, f"trials/{fingerprint}-layers.json"),
        kernels=None,
        build_route=request.route,
    )
    return RouteResult(trial, relative)


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM should the block not be left in time: a builder that hangs calls nothing that could raise."""
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
