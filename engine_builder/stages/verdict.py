"""The stage ``verdict``: judges the finalists, times those that pass against the baseline once more, and keeps the best engine.

How likely each finalist is over the budget is estimated for all of them together, since one of them is chosen by these samples
(``calibration.accuracy.drop_posterior``). By default whatever is more likely inside than not passes. A ``confidence`` demands ``met``:

1. On samples that the search did not see, finalists are tested at the full level, safest and slowest first, and the first failure ends the
   judging: a wrong pass needs the first engine of that order that is over the budget to pass by itself (fixed-sequence testing: W. Maurer,
   L. A. Hothorn and W. Lehmacher, Biometrie in der chemisch-pharmazeutischen Industrie 6, 1995, 3-18).
2. On samples that the search saw, the order owes to them, so the error probability is shared out among all engines that were tried.

An engine whose layers round their inputs with the range of a call, of several samples, answers by what stands beside a sample. Where it
would be timed, it is run once more with the samples in a random order, and the order in which it is more likely over the budget counts.

What passed is built again (byte for byte the same; where that cannot be had, the engine whose scores these are was kept) and timed in one
process with the baseline; what is kept is what was measured: the fastest that is worth it, or the safest of those that the timing cannot
tell from it. They are timed until it is known how much faster the fastest is than each that is safer, or their time is up.

An engine that the user asked for by its assignment alone is kept whatever its verdict and its time.

Every verdict is about the drop from the user's model in float32. The baseline gets one too: where it computes in half precision it may
be off by itself, and if it is kept, its own verdict is the job's. Where it is the user's file in float32, nothing is left to estimate.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime

from calibration.accuracy.verdict import AccuracyVerdict
from calibration.data.dataset import load_saved
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend, Runner
from engine_builder.config.config import Config
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.finalist_engines import BuiltFinalists, build_finalists
from engine_builder.engines.finalist_verdicts import judged_finalists, judged_on, same_engine, verdicts_on
from engine_builder.engines.quantized_engine import EXPLICIT_NAME
from engine_builder.evaluation.measurement import read_scores, timing_feeds
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.search.search_space import BASELINE
from engine_builder.search.shipping_rule import LEAST_GAIN, is_accurate_enough, is_worth_it, safest_of_fastest
from engine_builder.stage_io.engines import EngineJob, FinalLatency, JudgedTrial, VerdictRequest, VerdictResult
from engine_builder.timed_enough import FinalistsKnown
from engine_builder.timing import Timer, Timing, TimingPlan, relative_latency, time_interleaved
from engine_builder.workspace.model_files import keep_model, model_size_bytes
from engine_builder.workspace.workspace import FileRef, StageContext

FINAL_SECONDS = 12.0  # of interleaved runs of all finalists and the baseline, at most
WARM_UP_SECONDS = 1.0
MIN_RUNS, MAX_RUNS = 30, 2000


def verdict(
    request: VerdictRequest, context: StageContext, *, timer: Timer = time_interleaved, building: Building = building_backend
) -> VerdictResult:
    """Judge, time and keep.

    Args:
        request: The job and its finalists.
        context: Where the engine goes.
        timer: Times the finalists and the baseline.
        building: Gives the backend.
    """
    job, workspace = request.job, context.workspace
    inspection = workspace.read_value(Inspection, job.inspection)
    judged = judged_finalists(request, inspection, workspace)
    confidence, is_given = job.config.accuracy.confidence, job.config.assignment_only
    passed = [(trial, answer) for trial, answer in judged if is_accurate_enough(answer, confidence, is_given=is_given)]
    context.progress(0.3, f"{len(passed)} of {len(judged)} finalists judged pass")
    baseline_path = workspace.path(job.baseline)
    backend = building(job.config, context, final=True)
    built = build_finalists(passed, judged, request, inspection, context, backend)
    judged = built.judged
    timings, faster = _time(built, inspection, job, context, backend, timer)
    name = safest_of_fastest([trial.fingerprint for trial, _, _ in faster], timings)
    chosen = next((one for one in faster if one[0].fingerprint == name), None)
    capabilities = backend.capabilities
    own = read_scores(inspection.baseline.scores, workspace, inspection.reference.metric)
    if capabilities.is_own_baseline and inspection.baseline.precision is Precision.FP32:
        used = judged_on(request, len(own.scores))
        baseline = same_engine(inspection.reference.metric, own.scores[used], job.config.accuracy, request.selection)
    else:
        (baseline,) = verdicts_on([own], inspection, replace(request, tried=1), workspace)
    engine: FileRef | None = None
    explicit: FileRef | None = None
    if chosen is not None:
        file = capabilities.engine_name
        engine = keep_model(context.scratch / chosen[0].fingerprint / file, file, workspace)
        explicit = keep_model(context.scratch / chosen[0].fingerprint / EXPLICIT_NAME, EXPLICIT_NAME, workspace)
    elif not capabilities.is_own_baseline and (beside := baseline_path.with_name(EXPLICIT_NAME)).is_file():
        explicit = keep_model(beside, EXPLICIT_NAME, workspace)
    kept = baseline_path if engine is None else workspace.path(engine)
    return VerdictResult(
        judged=tuple(JudgedTrial(trial.fingerprint, answer) for trial, answer in judged),
        verdict=chosen[1] if chosen is not None else baseline,
        chosen=chosen[0].fingerprint if chosen is not None else None,
        ratio=chosen[2] if chosen is not None else 1.0,
        latency_ms={name: final_latency(timing) for name, timing in timings.items()},
        spread={name: relative_latency(timing, timings[BASELINE]) for name, timing in timings.items() if name != BASELINE},
        engine=engine,
        orders=built.orders,
        reordered=built.reordered,
        least_gain=capabilities.least_gain,
        explicit=explicit,
        baseline_accuracy=baseline.engine,
        baseline_precisions=_counts(inspection.baseline_precisions.values()),
        baseline_size_bytes=model_size_bytes(baseline_path),
        environment=environment(job.config, backend),
        tensors=backend.tensors(kept),
        profile=layer_times(kept, inspection, job, context, backend),
        waited=max((timing.waited for timing in timings.values() if timing.waited is not None), default=None),
    )


def environment(config: Config, backend: Backend) -> dict[str, object]:
    """Return what a reader needs to repeat a timing: processor, versions, threads, and what the target adds."""
    return {
        "processor": _processor(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "onnx": onnx.__version__,
        "threads": config.threads,
        **backend.environment(),
    }


def layer_times(engine: Path, inspection: Inspection, job: EngineJob, context: StageContext, backend: Backend) -> FileRef | None:
    """Write what each layer of an engine takes, where the runtime tells layers apart."""
    if not backend.capabilities.profiles_layers:
        return None
    workspace = context.workspace
    feeds = timing_feeds(inspection, load_saved(workspace.path(inspection.samples.validation)))
    times = backend.kernel_times(engine, feeds, threads=job.config.threads, scratch=context.scratch)
    return workspace.write_value("engine.profile.kernels.json", times)


def final_latency(timing: Timing) -> FinalLatency:
    """Return a timing as results tell it."""
    if not timing.runs:  # a prediction has no spread of runs
        return FinalLatency(timing.median_ms, None, None, 0)
    return FinalLatency(timing.median_ms, timing.p95_ms, timing.mad_ms, timing.runs)


def _time(
    built: BuiltFinalists,
    inspection: Inspection,
    job: EngineJob,
    context: StageContext,
    backend: Backend,
    timer: Timer,
) -> tuple[Mapping[str, Timing], list[tuple[Trial, AccuracyVerdict, float]]]:
    """Return all timings by fingerprint (and ``baseline``), and the finalists that are worth it with their ratios."""
    workspace = context.workspace
    feeds = timing_feeds(inspection, load_saved(workspace.path(inspection.samples.validation)))
    engines = {BASELINE: workspace.path(job.baseline)}  # all are built before one is opened: what a build takes is free again by then
    engines |= {trial.fingerprint: built.engines[trial.fingerprint] for trial, _ in built.passed}
    context.progress(0.8, "engines built")
    runners: dict[str, Runner] = {name: backend.open(engine, threads=job.config.threads) for name, engine in engines.items()}
    bounds = [1.0 - LEAST_GAIN]
    if job.config.objective is not None and job.config.objective.min_speedup is not None:
        bounds.append(job.config.objective.largest_ratio(1.0))
    enough = FinalistsKnown([trial.fingerprint for trial, _ in built.passed], tuple(bounds))
    timings = backend.timings(runners, feeds, TimingPlan(FINAL_SECONDS, MIN_RUNS, MAX_RUNS, timer, enough, WARM_UP_SECONDS))
    faster = []
    for trial, answer in built.passed:
        timing = timings[trial.fingerprint]
        relative = relative_latency(timing, timings[BASELINE])
        is_worth = is_worth_it(relative, are_outputs_equal=trial.are_outputs_equal, least_gain=backend.capabilities.least_gain)
        if is_worth or job.config.assignment_only:
            faster.append((trial, answer, relative.ratio))
    return timings, faster


def _counts(precisions: Iterable[Precision]) -> dict[str, int]:
    return {precision.value: count for precision, count in Counter(precisions).most_common()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
