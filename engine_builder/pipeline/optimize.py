"""The whole job on one page. Two drivers run it: the command line directly, the service with each stage a durable step.

Deterministic: no clock, no randomness, no threads; the same stage results give the same next request. It handles plain values and file
names only; models and arrays are opened in the stages (``stage_table.py``), which run in child processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from calibration.accuracy.resolution import resolution_note
from calibration.codec import as_object, json_from_value, value_from_json
from engine_builder.backends.base import Capabilities
from engine_builder.backends.job_precisions import low_precisions
from engine_builder.backends.registry import BACKENDS, Targets, backend_for, gpu_alike
from engine_builder.config.config import AnalysisWanted, Config
from engine_builder.config.inspect_settings import inspect_settings
from engine_builder.errors import EngineError
from engine_builder.pipeline import stage_table as table
from engine_builder.pipeline.ahead.replayed_search import Foresight, Recorded, Sources, View
from engine_builder.pipeline.decide import Searched, decide, largest_ratio
from engine_builder.pipeline.observer import Observer, best_index, public_trial
from engine_builder.pipeline.on_demand.analysis import Analysis
from engine_builder.pipeline.on_demand.corrections import Corrections, is_corrected_first
from engine_builder.pipeline.predictions import Predictions
from engine_builder.pipeline.progress import Progress
from engine_builder.pipeline.routes.tried_routes import with_routes
from engine_builder.pipeline.seen_samples import engines_tried, seen_by, selection_of
from engine_builder.pipeline.stage import RunStage, run
from engine_builder.records.assignment import fingerprint_of, folded_fingerprint
from engine_builder.records.calibrated import Calibrated
from engine_builder.records.given_assignment import layers_of, quantized_of
from engine_builder.records.trial import FOLDED, Trial, failed_trial
from engine_builder.search.deciding import Proposal
from engine_builder.search.measured_front import beaten
from engine_builder.search.search import Search
from engine_builder.search.search_space import QuantizedLayers, engine_without_residual_adds, one_format_engines
from engine_builder.stage_io.engines import BaselineRequest, EngineJob, TrialRequest
from engine_builder.stage_io.measuring import ConfidenceRequest, InspectRequest, InspectResult, JobFiles, RangesRequest
from engine_builder.stage_io.outcome import JobOutcome, ReportRequest, SearchSummary

PIPELINE_VERSION = "29"  # bumped when stage names, their order or the form of their requests or results change
SHARE_OF_TRIAL = 0.12  # of the progress that is left: how many trials there will be is not known


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is about; the files lie in its workspace."""

    files: JobFiles
    config: Config  # checked (``target_checks``): whoever takes a job from a user refuses it at once


def optimize(request: JobRequest, run_stage: RunStage, observer: Observer, *, targets: Targets = BACKENDS) -> JobOutcome:
    """Return the outcome of a finished job.

    Args:
        request: The user's files and settings.
        run_stage: Runs the stages, which must know the same targets.
        observer: Is shown how the job goes.
        targets: What engines can be built for.

    Raises:
        InputError: The user's files or settings do not fit; seen by the first stages.
        EngineError: A stage failed that is neither of the analysis nor a trial, a prediction, a final build or a verdict.
        StageCancelledError: The job was cancelled.
    """
    config, driver = request.config, _Spent(run_stage)
    capabilities = backend_for(config.target, config.gpu, table=targets).capabilities
    observer.entered("inspect", 0.0)
    alike = gpu_alike(config.target, config.gpu, targets)
    inspected = run(driver, table.INSPECT, InspectRequest(request.files, replace(inspect_settings(config), gpu=alike)))
    observer.judging(inspected.judged)
    if config.assignment:
        layers_of(config.assignment, inspected.layers)  # before anything is measured
    if config.accuracy.confidence is not None or config.accuracy.min_score is not None:
        wanted = ConfidenceRequest(
            inspected.scores, inspected.metric, config.accuracy.budget, config.accuracy.confidence, config.search.seed
        )
        run(driver, table.CONFIDENCE, wanted)
    untold = _cannot_tell(inspected, config)
    for note in untold:
        observer.noted(note)
    corrections = Corrections(_calibrated(config, capabilities, inspected, driver, observer, alike), driver, alike)
    one_format = one_format_engines(corrections.job.calibrated.eligible, capabilities.low_precisions)
    if is_corrected_first(config, capabilities, engines=len(one_format), seconds=driver.seconds):
        corrections.measured(None)
    progress = Progress(*table.TRIAL.progress)
    analysis = Analysis(corrections, capabilities, inspected, driver, observer, progress)
    if config.analysis is AnalysisWanted.FULL:
        analysis.measured()

    observer.entered("search", progress.at)
    predictions = Predictions(corrections, analysis, driver, observer, progress, lambda: _seconds_left(config, driver))
    recorded = Recorded(Sources(predictions.sequences, predictions.fastest, predictions.around, lambda: corrections.measured(progress)))
    making = _Making(one_format, corrections.job, capabilities, inspected)
    search = making.search(recorded.recording(), driver)
    foresight = Foresight(making.copied, recorded, lambda baseline: largest_ratio([baseline], config.objective))
    while (proposal := search.next()) is not None:
        job, index = corrections.job, len(search.trials) + 1
        observer.foreseen(lambda job=job, index=index: _requests(foresight, job, index))  # type: ignore[misc]
        told = _trial(search, proposal, job, driver, progress)
        foresight.tell(told)
        search.tell(told)
        needed = largest_ratio(search.trials, config.objective)
        observer.searched([public_trial(trial, needed) for trial in search.trials], best_index(search.trials, needed))

    selection = selection_of(search.trials, config, inspected.metric)
    trials = list(search.trials)
    seen, needed = seen_by(selection, config, inspected.metric, trials), largest_ratio(trials, config.objective)
    routed = with_routes(trials, seen, needed, corrections.job, capabilities, driver, lambda: driver.seconds, observer)
    if routed.helped:
        trials.extend(routed.helped)
        observer.searched([public_trial(trial, needed) for trial in trials], best_index(trials, needed))
    tried = engines_tried(trials) + routed.scored - len(routed.helped)
    searched = Searched(tuple(trials), seen, selection, capabilities.least_gain, tried)
    observer.entered("report", table.REBUILD.progress[0])
    decided = decide(searched, corrections.job, driver, lambda: driver.seconds)
    report = ReportRequest(
        decided.job,
        analysis.found,
        tuple(trials),
        decided.finalists,
        decided.judged,
        selection,
        predictions.made,
        (*untold, *corrections.failures, *routed.notes, *decided.notes),
        SearchSummary(search.ended, len(search.trials), driver.seconds),
        decided.offers,
        request.files.model,
        analysis.failures,
        corrections.are_left,
        routed.found,
        decided.stripped,
    )
    return run(driver, table.REPORT, report)


def _cannot_tell(inspected: InspectResult, config: Config) -> tuple[str, ...]:
    """Return what is said of a budget that is finer than the samples can tell."""
    if inspected.decided is None:
        return ()
    note = resolution_note(inspected.decided.samples, config.accuracy.budget, has_margins=inspected.decided.has_margins)
    return () if note is None else (note,)


def _calibrated(
    config: Config, capabilities: Capabilities, inspected: InspectResult, driver: RunStage, observer: Observer, alike: str | None
) -> EngineJob:
    """Return the job with its ranges and the baseline that engines must beat; ``alike`` is the GPU's name where only its kind counts."""
    observer.entered("ranges", table.RANGES.progress[0])
    quantized, method = low_precisions(config, capabilities), config.calibration.method
    only_paying = config.precisions is None and not config.assignment
    is_of_type = only_paying and capabilities.expected_ms is not None  # which layers pay is predicted from the GPU's own figures
    wanted = RangesRequest(
        inspected.model,
        inspected.calibration,
        method,
        quantized,
        config.target,
        config.gpu if is_of_type else alike,
        only_paying=only_paying,
        timed_batch=inspected.timed_batch,
        threads=config.threads,
    )
    ranged = run(driver, table.RANGES, wanted)
    calibrated = Calibrated(inspected.model, inspected.calibration, ranged.ranges, ranged.eligible, ranged.last_resorts, ranged.slower)
    job = EngineJob(config, inspected.inspection, inspected.baseline, calibrated)
    if not capabilities.is_own_baseline:
        built = run(driver, table.BASELINE, BaselineRequest(job))
        job = replace(job, inspection=built.inspection, baseline=built.baseline, knobs=built.knobs)
    return job


@dataclass(frozen=True, slots=True)
class _Making:
    """What a search and its copies are made from."""

    one_format: Mapping[str, QuantizedLayers]
    job: EngineJob
    capabilities: Capabilities
    inspected: InspectResult

    def search(self, sources: Sources, spent: _Spent) -> Search:
        """Return the search of the job."""
        limit = self.job.config.search.max_seconds
        return self._search(sources, max_seconds=limit, seconds=lambda: spent.seconds, seen=lambda view: view)

    def copied(self, sources: Sources, seen: Callable[[View], View]) -> Search:
        """Return a search like it without a limit of seconds, which what is only supposed does not take."""
        return self._search(sources, max_seconds=None, seconds=lambda: 0.0, seen=seen)

    def _search(self, sources: Sources, *, max_seconds: float | None, seconds: Callable[[], float], seen: Callable[[View], View]) -> Search:
        job, inspected = self.job, self.inspected
        config, metric = job.config, inspected.metric
        return Search(
            self.one_format,
            sources.sequences,
            lambda quantized: fingerprint_of(inspected.layers, quantized, self.capabilities.baseline),
            max_trials=config.search.max_trials,
            max_seconds=max_seconds,
            seconds=seconds,
            last_resorts=frozenset(f"all_{precision}" for precision in job.calibrated.last_resorts),
            without_residual_adds=engine_without_residual_adds(self.one_format, inspected.residual_adds),
            tries_folded=inspected.is_folded_apart,
            given=quantized_of(config.assignment, inspected.layers, job.calibrated.eligible) if config.assignment else None,
            only_given=config.assignment_only,
            largest_ratio=None if config.objective is None else config.objective.largest_ratio,
            view=lambda trials: seen(seen_by(selection_of(trials, config, metric), config, metric, trials)),
            fastest=sources.fastest,
            around=sources.around,
            correct=sources.correct,
        )


def _requests(foresight: Foresight, job: EngineJob, index: int) -> Iterator[Mapping[str, object]]:
    """Yield requests of trials that may come after the one that runs, as far as their engines are concerned."""
    for proposal in foresight.proposals():
        yield as_object(json_from_value(TrialRequest(job, proposal.quantized, index, proposal.order)))


def _trial(search: Search, proposal: Proposal, job: EngineJob, driver: _Spent, progress: Progress) -> Trial:
    """Return the trial of a proposal; one that cannot be built or run is a failed trial, not a failed job."""
    index, fingerprint = len(search.trials), search.fingerprint(proposal.quantized)
    if proposal.order == FOLDED:
        fingerprint = folded_fingerprint(fingerprint)
    left, lost = _seconds_left(job.config, driver), beaten(search.trials)
    request = TrialRequest(job, proposal.quantized, index, proposal.order, proposal.deciding, left, lost)
    try:
        return run(driver, table.TRIAL, request, key=f"trial/{fingerprint}", span=progress.take(SHARE_OF_TRIAL))
    except EngineError as error:
        return failed_trial(index, fingerprint, dict(proposal.quantized), proposal.order, error.detail, error.seconds)


def _seconds_left(config: Config, driver: _Spent) -> float | None:
    """Return what is left of the search's time; None where it has no limit."""
    limit = config.search.max_seconds
    return None if limit is None else max(limit - driver.seconds, 0.0)


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
