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
tell from it.

Every verdict is about the drop from the user's model in float32. The baseline gets one too: where it computes in half precision it may
be off by itself, and if it is kept, its own verdict is the job's. Where it is the user's file in float32, nothing is left to estimate.
"""

from __future__ import annotations

import functools
import itertools
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from calibration.accuracy.drop_posterior import probabilities_over, slack_draws
from calibration.accuracy.verdict import DEFAULT_CONFIDENCE, AccuracyVerdict, Answer, IntervalMethod, Selection, drop_evidence, judge
from calibration.data.dataset import load_saved
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Backend, Runner
from engine_builder.config.config import Config
from engine_builder.engines.factory import Building, building_backend
from engine_builder.engines.quantized_engine import EXPLICIT_NAME, EngineRecipe, build, write_explicit
from engine_builder.evaluation.measurement import EngineScores, depends_on_order, read_scores, scored_engine, search_half, timing_feeds
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.search.shipping_rule import is_accurate_enough, is_worth_it
from engine_builder.stage_io.engines import EngineJob, FinalLatency, JudgedTrial, OrderScores, VerdictRequest, VerdictResult
from engine_builder.timing import Timer, Timing, TimingPlan, is_tied, relative_latency, time_interleaved
from engine_builder.workspace.model_files import keep_model, model_size_bytes
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace

FINAL_SECONDS = 4.0  # of interleaved runs of all finalists and the baseline, at most
FINAL_TIMER = functools.partial(time_interleaved, enough=0.01)
MIN_RUNS, MAX_RUNS = 30, 2000


def verdict(
    request: VerdictRequest, context: StageContext, *, timer: Timer = FINAL_TIMER, building: Building = building_backend
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
    judged = _judge(request, inspection, workspace)
    passed = [(trial, answer) for trial, answer in judged if is_accurate_enough(answer, job.config.accuracy.confidence)]
    context.progress(0.3, f"{len(passed)} of {len(judged)} finalists judged pass")
    baseline_path = workspace.path(job.baseline)
    backend = building(job.config, context, final=True)
    built = _build(passed, judged, request, inspection, context, backend)
    judged = built.judged
    timings, faster = _time(built, inspection, job, context, backend, timer)
    chosen = _chosen(faster, timings)
    own = read_scores(inspection.baseline.scores, workspace, inspection.reference.metric)
    (baseline,) = _answers([own], inspection, replace(request, tried=1), workspace)
    capabilities = backend.capabilities
    if capabilities.is_own_baseline and inspection.baseline.precision is Precision.FP32:
        baseline = same_engine(baseline)
    engine: FileRef | None = None
    explicit: FileRef | None = None
    if chosen is not None:
        name = capabilities.engine_name
        engine = keep_model(context.scratch / chosen[0].fingerprint / name, name, workspace)
        explicit = keep_model(context.scratch / chosen[0].fingerprint / EXPLICIT_NAME, EXPLICIT_NAME, workspace)
    elif not capabilities.is_own_baseline and (beside := baseline_path.with_name(EXPLICIT_NAME)).is_file():
        explicit = keep_model(beside, EXPLICIT_NAME, workspace)
    return VerdictResult(
        judged=tuple(JudgedTrial(trial.fingerprint, answer) for trial, answer in judged),
        verdict=chosen[1] if chosen is not None else baseline,
        chosen=chosen[0].fingerprint if chosen is not None else None,
        ratio=chosen[2] if chosen is not None else 1.0,
        latency_ms={name: _milliseconds(timing) for name, timing in timings.items()},
        spread={name: relative_latency(timing, timings["baseline"]) for name, timing in timings.items() if name != "baseline"},
        engine=engine,
        orders=built.orders,
        least_gain=capabilities.least_gain,
        explicit=explicit,
        baseline_accuracy=baseline.engine,
        baseline_precisions=_counts(inspection.baseline_precisions.values()),
        baseline_size_bytes=model_size_bytes(baseline_path),
        environment=environment(job.config, backend),
        tensors=backend.tensors(baseline_path if engine is None else workspace.path(engine)),
        waited=max((timing.waited for timing in timings.values() if timing.waited is not None), default=None),
    )


def same_engine(answer: AccuracyVerdict) -> AccuracyVerdict:
    """Return the verdict on an engine that is the reference itself, from what was measured: met, and certainly so."""
    return replace(
        answer,
        answer=Answer.MET,
        interval=(answer.drop, answer.drop),
        method=IntervalMethod.SAME_ENGINE,
        probability_over_budget=0.0,
        samples_needed=answer.n,
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


def _judge(request: VerdictRequest, inspection: Inspection, workspace: Workspace) -> list[tuple[Trial, AccuracyVerdict]]:
    """Return the verdicts in order; where an order is needed for a confidence, up to the first that is not accepted."""
    config = request.job.config
    scored = [trial for trial in request.finalists if trial.scores is not None]
    answers = _answers([_scores(trial, inspection, workspace) for trial in scored], inspection, request, workspace)
    judged = list(zip(scored, answers, strict=True))
    if config.accuracy.confidence is None or request.selection is Selection.SHARED:  # rule 2
        return judged
    passed = sum(1 for _ in itertools.takewhile(lambda answer: is_accurate_enough(answer, config.accuracy.confidence), answers))
    return judged[: passed + 1]  # rule 1


def _scores(trial: Trial, inspection: Inspection, workspace: Workspace) -> EngineScores:
    """Return what a trial's engine scored."""
    assert trial.scores is not None  # it is a finalist
    return read_scores(trial.scores, workspace, inspection.reference.metric, are_outputs_equal=trial.are_outputs_equal)


def _answers(
    engines: Sequence[EngineScores], inspection: Inspection, request: VerdictRequest, workspace: Workspace
) -> list[AccuracyVerdict]:
    """Return the verdict on each engine: on all samples, or on those that the search did not see."""
    if not engines:
        return []
    config, metric = request.job.config, inspection.reference.metric
    reference = workspace.read_scores(inspection.reference.scores)
    used = np.arange(len(reference))
    if request.selection is Selection.HELD_OUT:
        used = np.setdiff1d(used, search_half(len(reference), config.search.seed))
    reference, engines = reference[used], [engine.of(used) for engine in engines]
    budget, seed = config.accuracy.budget, config.search.seed
    evidence = [
        drop_evidence(metric, reference, one.scores, budget, margins=one.margins, are_outputs_equal=one.are_outputs_equal)
        for one in engines
    ]
    likely = probabilities_over(slack_draws(evidence, np.random.default_rng(seed), are_chosen_from=len(engines) > 1))
    return [
        judge(
            metric,
            reference,
            one.scores,
            budget,
            confidence=config.accuracy.confidence or DEFAULT_CONFIDENCE,
            selection=request.selection,
            rng=np.random.default_rng(seed),
            probability_over_budget=probability,
            chosen_from=request.tried if request.selection is Selection.SHARED else 1,
        )
        for one, probability in zip(engines, likely, strict=True)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Built:
    """The engines that may ship."""

    passed: list[tuple[Trial, AccuracyVerdict]]  # safest first, those that are timed
    engines: Mapping[str, Path]  # by fingerprint
    judged: list[tuple[Trial, AccuracyVerdict]]  # all finalists, by the worse order of samples where both were run
    orders: Mapping[str, OrderScores]  # by fingerprint


def _build(
    passed: Sequence[tuple[Trial, AccuracyVerdict]],
    judged: Sequence[tuple[Trial, AccuracyVerdict]],
    request: VerdictRequest,
    inspection: Inspection,
    context: StageContext,
    backend: Backend,
) -> _Built:
    """Return the fastest engines that pass, in any order of the samples, built: as many as are timed at most."""
    workspace, job = context.workspace, request.job
    worse, orders = {trial.fingerprint: answer for trial, answer in judged}, {}
    kept: dict[str, Path] = {}
    for trial, answer in reversed(passed):
        done = 0.3 + 0.5 * len(kept) / request.most_timed
        folder = context.scratch / trial.fingerprint
        folder.mkdir()
        recipe = EngineRecipe(inspection, job.calibrated, trial.precisions, trial.corrections)
        place = replace(context.part(done, done + 0.5 / request.most_timed), scratch=folder)
        if trial.engine is None:
            engine = build(recipe, backend, place).path
        else:
            engine = folder / backend.capabilities.engine_name
            shutil.copyfile(workspace.path(trial.engine), engine)
            write_explicit(recipe, backend, place)
        if depends_on_order(trial.precisions, inspection):
            context.progress(done, "samples in another order")
            shuffled = _shuffled(engine, trial, request, inspection, backend, workspace)
            orders[trial.fingerprint] = OrderScores(answer.engine, shuffled.engine)
            worse[trial.fingerprint] = max(answer, shuffled, key=lambda one: (one.probability_over_budget, one.drop))
        if is_accurate_enough(worse[trial.fingerprint], job.config.accuracy.confidence):
            kept[trial.fingerprint] = engine
        elif job.config.accuracy.confidence is not None and request.selection is Selection.HELD_OUT:
            kept = {}  # rule 1: what is faster than an engine that fails was not tested
        if len(kept) == request.most_timed:
            break
    known = [(trial, worse[trial.fingerprint]) for trial, _ in judged]
    return _Built([(trial, answer) for trial, answer in known if trial.fingerprint in kept], kept, known, orders)


def _shuffled(
    engine: Path, trial: Trial, request: VerdictRequest, inspection: Inspection, backend: Backend, workspace: Workspace
) -> AccuracyVerdict:
    """Return the verdict on an engine that is run over the samples in a random order."""
    config = request.job.config
    validation, rng = load_saved(workspace.path(inspection.samples.validation)), np.random.default_rng(config.search.seed)
    with scored_engine(engine, inspection, validation, backend, workspace, threads=config.threads, shuffled=rng) as scored:
        scores = scored.engine
    finalists = [one for one in request.finalists if one.scores is not None]
    beside = [
        scores if one.fingerprint == trial.fingerprint else _scores(one, inspection, workspace) for one in finalists
    ]  # one of them is chosen by these samples
    return _answers(beside, inspection, request, workspace)[[one.fingerprint for one in finalists].index(trial.fingerprint)]


def _time(
    built: _Built,
    inspection: Inspection,
    job: EngineJob,
    context: StageContext,
    backend: Backend,
    timer: Timer,
) -> tuple[Mapping[str, Timing], list[tuple[Trial, AccuracyVerdict, float]]]:
    """Return all timings by fingerprint (and ``baseline``), and the finalists that are worth it with their ratios."""
    workspace = context.workspace
    feeds = timing_feeds(inspection, load_saved(workspace.path(inspection.samples.validation)))
    engines = {"baseline": workspace.path(job.baseline)}  # all are built before one is opened: what a build takes is free again by then
    engines |= {trial.fingerprint: built.engines[trial.fingerprint] for trial, _ in built.passed}
    context.progress(0.8, "engines built")
    runners: dict[str, Runner] = {name: backend.open(engine, threads=job.config.threads) for name, engine in engines.items()}
    timings = backend.timings(runners, feeds, TimingPlan(FINAL_SECONDS, MIN_RUNS, MAX_RUNS, timer))
    faster = []
    for trial, answer in built.passed:
        timing = timings[trial.fingerprint]
        relative = relative_latency(timing, timings["baseline"])
        if is_worth_it(relative, are_outputs_equal=trial.are_outputs_equal, least_gain=backend.capabilities.least_gain):
            faster.append((trial, answer, relative.ratio))
    return timings, faster


def _chosen(
    faster: Sequence[tuple[Trial, AccuracyVerdict, float]], timings: Mapping[str, Timing]
) -> tuple[Trial, AccuracyVerdict, float] | None:
    """Return the safest of the engines that cannot be told from the fastest, or None of none.

    Args:
        faster: Engines that beat the baseline, safest first, with their ratios to it.
        timings: All timings by fingerprint, of one call.
    """
    if not faster:
        return None
    fastest = timings[min(faster, key=lambda item: item[2])[0].fingerprint]
    return next(item for item in faster if is_tied(timings[item[0].fingerprint], fastest))


def _counts(precisions: Iterable[Precision]) -> dict[str, int]:
    return {precision.value: count for precision, count in Counter(precisions).most_common()}


def _milliseconds(timing: Timing) -> FinalLatency:
    if not timing.runs:  # a prediction has no spread of runs
        return FinalLatency(timing.median_ms, None, None, 0)
    return FinalLatency(timing.median_ms, timing.p95_ms, timing.mad_ms, timing.runs)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
