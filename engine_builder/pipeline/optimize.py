"""The whole job on one page. Two drivers run it: the command line directly, the service with each stage a durable step.

Deterministic: no clock, no randomness, no threads; the same stage results give the same next request. It handles plain values and file
names only; models and arrays are opened in the stages (``stage_table.py``), which run in child processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from calibration.accuracy.kinds.part import JudgedOutput
from calibration.accuracy.resolution import resolution_note
from calibration.codec import value_from_json
from engine_builder.backends.base import Capabilities
from engine_builder.backends.job_precisions import low_precisions
from engine_builder.backends.registry import BACKENDS, Targets, backend_for
from engine_builder.config.config import Config
from engine_builder.config.inspect_settings import inspect_settings
from engine_builder.errors import EngineError
from engine_builder.evaluation.loss_budget import allowed_loss
from engine_builder.pipeline import stage_table as table
from engine_builder.pipeline.decide import Searched, decide, largest_ratio
from engine_builder.pipeline.seen_samples import engines_tried, seen_by, selection_of
from engine_builder.pipeline.shown_trials import best_index, public_trial
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.records.assignment import fingerprint_of
from engine_builder.records.calibrated import Calibrated
from engine_builder.records.trial import Trial, failed_trial
from engine_builder.search.rankings import prefixes
from engine_builder.search.search import CandidateSequence, Proposal, Search
from engine_builder.search.search_space import engine_without_residual_adds, one_format_engines
from engine_builder.search.strategies.registry import default_strategy
from engine_builder.search.strategies.strategy import Evidence
from engine_builder.stage_io.engines import BaselineRequest, EngineJob, PredictRequest, PredictResult, TrialRequest
from engine_builder.stage_io.measuring import (
    ConfidenceRequest,
    CorrectRequest,
    HessianRequest,
    InspectRequest,
    InspectResult,
    InteractionsRequest,
    InteractionsResult,
    JobFiles,
    RangesRequest,
    RankRequest,
    RankResult,
    SensitivityRequest,
)
from engine_builder.stage_io.outcome import JobOutcome, ReportRequest, SearchSummary

PIPELINE_VERSION = "12"  # bumped when stage names, their order or the form of their requests or results change
MAX_PROBE_SAMPLES = 256
CHUNK_SECONDS = 20.0  # of one sensitivity stage
SHARE_OF_FORWARD = 0.7  # cost of one probe, in forward passes of the whole model


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is about; the files lie in its workspace."""

    files: JobFiles
    config: Config  # checked (``target_checks``): whoever takes a job from a user refuses it at once


class Observer(Protocol):
    """Is shown how the job goes. Called again with the same values on a replay, so every call must be idempotent."""

    def entered(self, stage: str, progress: float) -> None:
        """Told that a part of the job begins: inspect, ranges, sensitivity, dependency, search, refine or report."""

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        """Told how each compared output is taken, and why, before anything is probed."""

    def noted(self, text: str) -> None:
        """Told what the user should know before the job goes on; the report has it among its notes."""

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        """Told all trials so far, in the form of the HTTP contract, and the index of the best."""


@dataclass(frozen=True, slots=True)
class _Probed:
    """What the probes of the float model found."""

    ranked: RankResult
    interactions: InteractionsResult
    providers: tuple[str, ...]


def optimize(request: JobRequest, run_stage: RunStage, observer: Observer, *, targets: Targets = BACKENDS) -> JobOutcome:
    """Return the outcome of a finished job.

    Args:
        request: The user's files and settings.
        run_stage: Runs the stages, which must know the same targets.
        observer: Is shown how the job goes.
        targets: What engines can be built for.

    Raises:
        InputError: The user's files or settings do not fit; seen by the first stages.
        EngineError: A stage failed that is neither a trial, a prediction nor a final build or verdict.
        StageCancelledError: The job was cancelled.
    """
    config, driver = request.config, _Spent(run_stage)
    capabilities = backend_for(config.target, config.gpu, table=targets).capabilities
    observer.entered("inspect", 0.0)
    inspected = run(driver, table.INSPECT, InspectRequest(request.files, inspect_settings(config)))
    observer.judging(inspected.judged)
    if config.accuracy.confidence is not None:
        wanted = ConfidenceRequest(
            inspected.scores, inspected.metric, config.accuracy.budget, config.accuracy.confidence, config.search.seed
        )
        run(driver, table.CONFIDENCE, wanted)
    untold = _cannot_tell(inspected, config)
    for note in untold:
        observer.noted(note)
    job = _calibrated(config, capabilities, inspected, driver, observer)
    probed = _probe(job, capabilities, inspected, driver, observer)

    observer.entered("search", table.TRIAL.progress[0])
    predictions: list[PredictResult] = []
    search = _search(job, capabilities, inspected, _sequences(job, probed.ranked, driver, observer, predictions), driver)
    while (proposal := search.next()) is not None:
        search.tell(_trial(search, proposal, job, driver))
        needed = largest_ratio(search.trials, config.objective)
        observer.searched([public_trial(trial, needed) for trial in search.trials], best_index(search.trials, needed))

    observer.entered("report", table.REBUILD.progress[0])
    selection = selection_of(search.trials, config, inspected.metric)
    seen = seen_by(selection, config, inspected.metric, search.trials)
    searched = Searched(tuple(search.trials), seen, selection, capabilities.least_gain, engines_tried(search.trials))
    decided = decide(searched, job, driver, lambda: driver.seconds)
    report = ReportRequest(
        decided.job,
        probed.ranked,
        probed.interactions.tests,
        probed.providers,
        tuple(search.trials),
        decided.finalists,
        decided.judged,
        selection,
        tuple(predictions),
        (*untold, *decided.notes),
        SearchSummary(search.ended, len(search.trials), driver.seconds),
        decided.offers,
    )
    return run(driver, table.REPORT, report)


def _cannot_tell(inspected: InspectResult, config: Config) -> tuple[str, ...]:
    """Return what is said of a budget that is finer than the samples can tell."""
    if inspected.decided is None:
        return ()
    note = resolution_note(inspected.decided.samples, config.accuracy.budget, has_margins=inspected.decided.has_margins)
    return () if note is None else (note,)


def _calibrated(config: Config, capabilities: Capabilities, inspected: InspectResult, driver: RunStage, observer: Observer) -> EngineJob:
    """Return the job with its ranges, its corrections and the baseline that engines must beat."""
    observer.entered("ranges", table.RANGES.progress[0])
    quantized, method = low_precisions(config, capabilities), config.calibration.method
    wanted = RangesRequest(inspected.model, inspected.calibration, method, quantized, config.target, config.gpu)
    ranged = run(driver, table.RANGES, wanted)
    calibrated = Calibrated(inspected.model, inspected.calibration, ranged.ranges, ranged.eligible)
    job = EngineJob(config, inspected.inspection, inspected.baseline, calibrated)
    if not capabilities.is_own_baseline:
        built = run(driver, table.BASELINE, BaselineRequest(job))
        job = replace(job, inspection=built.inspection, baseline=built.baseline)
    if config.calibration.repair:
        settings = config.calibration
        made = run(driver, table.CORRECT, CorrectRequest(calibrated, settings.method, settings.second_order, config.search.seed))
        job = replace(job, calibrated=replace(calibrated, corrections=made.corrections))
    return job


def _probe(job: EngineJob, capabilities: Capabilities, inspected: InspectResult, driver: RunStage, observer: Observer) -> _Probed:
    """Return what the probes of the float model found."""
    of, config = job.calibrated, job.config
    observer.entered("sensitivity", table.SENSITIVITY.progress[0])
    forward_seconds = sum(map(len, of.eligible.values())) * inspected.sample_seconds / inspected.processors
    shares = probe_shares(inspected.samples, inspected.batch, forward_seconds)
    low, high = table.SENSITIVITY.progress
    step = (high - low) / len(shares)
    layer_losses = []
    for index, (start, stop) in enumerate(shares):
        span = (low + step * index, low + step * (index + 1))
        layer_losses.append(run(driver, table.SENSITIVITY, SensitivityRequest(of, start, stop), key=f"sensitivity/{index}", span=span))
    losses = tuple(share.losses for share in layer_losses)
    allowed = allowed_loss(config.accuracy.budget, inspected.metric, inspected.scored_kinds)
    traced = run(driver, table.HESSIAN, HessianRequest(of, low_precisions(config, capabilities), allowed, config.search.seed))
    observer.entered("dependency", table.INTERACTIONS.progress[0])
    tested = run(driver, table.INTERACTIONS, InteractionsRequest(of, losses))
    ranked = run(driver, table.RANK, RankRequest(of, losses, traced.traces, traced.samples, tested.tests, config.search.orders))
    providers = {share.provider for share in layer_losses} | {traced.provider, tested.provider}
    return _Probed(ranked, tested, tuple(sorted(providers)))


def probe_shares(samples: int, batch: int, forward_seconds: float) -> tuple[tuple[int, int], ...]:
    """Return the samples [start, stop) of each sensitivity stage, so that one takes about CHUNK_SECONDS.

    Args:
        samples: Calibration samples; the first MAX_PROBE_SAMPLES are probed.
        batch: Samples in one call; shares are whole batches.
        forward_seconds: One forward pass of one sample for every layer precision, all processors at work.
    """
    used = min(samples, max(MAX_PROBE_SAMPLES // batch, 1) * batch)
    size = max(1, int(CHUNK_SECONDS / max(forward_seconds * SHARE_OF_FORWARD * batch, 1e-9))) * batch
    return tuple((start, min(start + size, used)) for start in range(0, used, size))


def _sequences(
    job: EngineJob, ranked: RankResult, driver: RunStage, observer: Observer, predictions: list[PredictResult]
) -> Callable[[Sequence[Trial]], Iterator[CandidateSequence]]:
    """Return what the strategy proposes. What it may ask for is predicted by a stage, under a name of its own each time."""

    def predicted(trials: Sequence[Trial]) -> tuple[CandidateSequence, ...] | None:
        time = next(asked)
        start = _search_span(len(trials))[0]
        observer.entered("refine" if time else "search", start)
        key = f"predict/{('search', 'refine')[time] if time < 2 else f'refine/{time}'}"
        request = PredictRequest(job, ranked, tuple(trials), predictions[0].kernels_ms if predictions else None)
        try:
            predictions.append(run(driver, table.PREDICT, request, key=key, span=(start, start)))
        except EngineError:  # it builds and runs engines too
            return None
        return tuple(CandidateSequence(one.name, one.rungs, one.ratios) for one in predictions[-1].ladders)

    asked = itertools.count()
    return partial(default_strategy().propose, Evidence(lambda: _prefixes(ranked), predicted))


def _prefixes(ranked: RankResult) -> Iterator[CandidateSequence]:
    """Yield the prefixes of every order where there is nothing to predict latency from: each may win."""
    for name, order in ranked.rankings.items():
        candidates = prefixes(order)
        yield CandidateSequence(name, candidates, (0.0,) * len(candidates))


def _search(
    job: EngineJob,
    capabilities: Capabilities,
    inspected: InspectResult,
    sequences: Callable[[Sequence[Trial]], Iterator[CandidateSequence]],
    spent: _Spent,
) -> Search:
    config, metric = job.config, inspected.metric
    one_format = one_format_engines(job.calibrated.eligible, capabilities.low_precisions)
    return Search(
        one_format,
        sequences,
        lambda quantized: fingerprint_of(inspected.layers, quantized, capabilities.baseline),
        max_trials=config.search.max_trials,
        max_seconds=config.search.max_seconds,
        seconds=lambda: spent.seconds,
        without_residual_adds=engine_without_residual_adds(one_format, inspected.residual_adds),
        largest_ratio=None if config.objective is None else config.objective.largest_ratio,
        view=lambda trials: seen_by(selection_of(trials, config, metric), config, metric, trials),
    )


def _trial(search: Search, proposal: Proposal, job: EngineJob, driver: RunStage) -> Trial:
    """Return the trial of a proposal; one that cannot be built or run is a failed trial, not a failed job."""
    index, fingerprint = len(search.trials), search.fingerprint(proposal.quantized)
    request = TrialRequest(job, proposal.quantized, index, proposal.order)
    try:
        return run(driver, table.TRIAL, request, key=f"trial/{fingerprint}", span=_search_span(index))
    except EngineError as error:
        return failed_trial(index, fingerprint, dict(proposal.quantized), proposal.order, error.detail, error.seconds)


def _search_span(index: int) -> tuple[float, float]:
    """Return the progress that a trial covers. How many there will be is not known: each covers 12% of what is left."""
    low, high = table.TRIAL.progress
    return high - (high - low) * 0.88**index, high - (high - low) * 0.88 ** (index + 1)


class _Spent:
    """Runs stages and adds up the seconds that their answers and their errors say they took. Those are recorded: a replay has the same."""

    def __init__(self, run_stage: RunStage) -> None:
        self._run_stage = run_stage
        self.seconds = 0.0

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> Mapping[str, object]:
        try:
            answer = self._run_stage(name, stage, request, span)
        except EngineError as error:
            self.seconds += error.seconds
            raise
        self.seconds += value_from_json(float, answer["seconds"])
        return answer
