"""The whole job on one page. Two drivers run it: the command line directly, the service with each stage a durable step.

Deterministic: no clock, no randomness, no threads; the same stage results give the same next request. It handles JSON values and file
names only; models and arrays are opened in the stages (``stages.py``), which run in child processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import DEFAULT_CONFIDENCE, Selection, can_settle
from calibration.codec import json_from_value, value_from_json
from calibration.number_formats.layer_precision import Decision
from calibration.number_formats.precision import Precision
from engine_builder.backends.base import Capabilities
from engine_builder.backends.registry import BACKENDS, Targets, backend_for
from engine_builder.config.config import Config, config_json
from engine_builder.errors import EngineError, StageCancelledError
from engine_builder.pipeline.finalists import final_engines
from engine_builder.pipeline.judge_finalists import final_verdict
from engine_builder.records.assignment import fingerprint_of
from engine_builder.records.trial import SEARCH_SHARE, Accuracy, Trial, failed_trial
from engine_builder.search.confidence import certain
from engine_builder.search.measured_front import finalists, pareto_front
from engine_builder.search.rankings import prefixes
from engine_builder.search.search import Ladder, Proposal, Search
from engine_builder.search.search_space import products_engine, uniform_engines
from engine_builder.search.strategies.registry import default_strategy
from engine_builder.search.strategies.strategy import Evidence
from engine_builder.workspace.workspace import FileRef

PIPELINE_VERSION = "10"  # bumped when stage names, their order or the form of their results change
MAX_PROBE_SAMPLES = 256
CHUNK_SECONDS = 20.0  # of one sensitivity stage
SHARE_OF_FORWARD = 0.7  # cost of one probe, in forward passes of the whole model
SPANS = {  # the part of a job's progress that each stage covers
    "inspect": (0.0, 0.03),
    "ranges": (0.03, 0.05),
    "baseline": (0.05, 0.06),
    "repair": (0.06, 0.09),
    "sensitivity": (0.09, 0.28),
    "hessian": (0.28, 0.34),
    "dependency": (0.34, 0.41),
    "orders": (0.41, 0.42),
    "search": (0.42, 0.92),
    "final": (0.92, 0.95),
    "verdict": (0.95, 0.98),
    "report": (0.98, 1.0),
}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is about; the files lie in its workspace."""

    model: FileRef
    calibration: FileRef
    validation: FileRef | None
    config: Config
    metric_model: FileRef | None = None  # the user's own metric


class RunStage(Protocol):
    """Runs a stage to its end in a child process, or returns what it returned when it ran before."""

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        """Return the stage's result.

        Args:
            name: Unique in the job and the same on every replay.
            stage: A key of ``stages.STAGES``.
            request: Plain JSON.
            span: The part of the job's progress, 0..1, that this stage covers.
        """


class Observer(Protocol):
    """Is shown how the job goes. Called again with the same values on a replay, so every call must be idempotent."""

    def entered(self, stage: str, progress: float) -> None:
        """Told that a stage begins: inspect, ranges, sensitivity, dependency, search, refine or report."""

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        """Told all trials so far, in the form of the HTTP contract, and the index of the best."""


def optimize(job: JobRequest, run_stage: RunStage, observer: Observer, *, targets: Targets = BACKENDS) -> dict[str, object]:
    """Return ``result`` (design of the HTTP contract), the file ``engine`` and the files ``artifacts`` of a finished job.

    Args:
        job: The job.
        run_stage: Runs its stages, which must know the same targets.
        observer: Is shown how it goes.
        targets: What engines can be built for.

    Raises:
        InputError: The user's files or settings do not fit; seen by the first stage.
        EngineError: A stage failed that is neither a trial, a forecast nor a final build or verdict, or the job was cancelled.
    """
    config = config_json(job.config)
    run_stage = spent = _Spent(run_stage)
    files = {"model": job.model, "calibration": job.calibration, "validation": job.validation, "metric_model": job.metric_model}
    basics = {"config": config, "model": json_from_value(job.model)}
    observer.entered("inspect", 0.0)
    inspected = run_stage("inspect", "inspect", {"config": config} | {k: json_from_value(v) for k, v in files.items()}, SPANS["inspect"])
    basics |= {"inspection": inspected["inspection"], "model": inspected["baseline"]}  # what engines must beat, from here on

    observer.entered("ranges", SPANS["ranges"][0])
    ranged = run_stage("ranges", "ranges", basics, SPANS["ranges"])
    basics |= {"ranges": ranged["ranges"], "able": ranged["able"]}
    capabilities = backend_for(job.config.target, job.config.gpu, table=targets).capabilities
    if not capabilities.is_own_baseline:
        built = run_stage("baseline", "baseline", basics, SPANS["baseline"])
        basics |= {"inspection": built["inspection"], "model": built["baseline"]}
    if job.config.calibration.repair:
        basics["repairs"] = run_stage("repair", "repair", basics, SPANS["repair"])["repairs"]
    measured = _measure(job, basics, inspected, run_stage, observer)

    observer.entered("search", SPANS["search"][0])
    basics |= {key: measured[key] for key in ("table", "dependency", "orders")}
    forecasts: list[dict[str, object]] = []
    search = _search(job, capabilities, inspected, ranged, _ladders(basics, run_stage, observer, forecasts), spent)
    while (proposal := search.next()) is not None:
        search.tell(_trial(search, proposal, basics, run_stage))
        observer.searched([public_trial(trial) for trial in search.trials], best_index(search.trials))

    observer.entered("report", SPANS["final"][0])
    metric = Metric(str(inspected["metric"]))
    selection = _selection(search.trials, job.config, metric)
    picked = finalists(search.trials, _seen(selection, job.config, metric))
    final = final_engines(picked, job.config.builder, basics, run_stage, SPANS["final"])
    basics |= final.basics
    judged, failures = final_verdict(final.finalists, {**basics, "selection": selection.value}, run_stage, SPANS["verdict"])
    outcome = {"trials": json_from_value(search.trials), "finalists": json_from_value(final.finalists), "verdict": judged}
    outcome |= {"selection": selection.value, "forecasts": forecasts, "notes": [*final.notes, *failures]}
    outcome["search"] = {"ended": search.ended, "trials": len(search.trials), "seconds": spent.seconds}
    return run_stage("report", "report", basics | measured | outcome, SPANS["report"])


def public_trial(trial: Trial) -> dict[str, object]:
    """Return a trial in the form of the HTTP contract."""
    latency = trial.latency
    return {
        "index": trial.index,
        "fingerprint": trial.fingerprint,
        "order": trial.order,
        "low_layers": trial.low_layers,
        "accuracy": trial.on_all.score if trial.on_all is not None else None,
        "latency_ms": None if latency is None else {"median": latency.median_ms, "p95": latency.p95_ms or None, "runs": latency.runs},
        "met": trial.met,
        "failure": trial.failure,
        "seconds": trial.seconds,
    }


def best_index(trials: Sequence[Trial]) -> int | None:
    """Return the index of the fastest trial that meets the budget."""
    return next((trial.index for trial in pareto_front([trial for trial in trials if trial.met])), None)


def _measure(
    job: JobRequest, basics: Mapping[str, object], inspected: Mapping[str, object], run_stage: RunStage, observer: Observer
) -> dict[str, object]:
    """Return what the probes of the float model found: file references and the orders."""
    observer.entered("sensitivity", SPANS["sensitivity"][0])
    probed = sum(map(len, cast(Mapping[str, Sequence[str]], basics["able"]).values()))
    forward_seconds = probed * cast(float, inspected["sample_seconds"]) / cast(int, inspected["processors"])
    shares = probe_shares(cast(int, inspected["samples"]), cast(int, inspected["batch"]), forward_seconds)
    singles, providers = [], []
    low, high = SPANS["sensitivity"]
    for index, (start, stop) in enumerate(shares):
        span = (low + (high - low) * index / len(shares), low + (high - low) * (index + 1) / len(shares))
        found = run_stage(f"sensitivity/{index}", "sensitivity", {**basics, "start": start, "stop": stop}, span)
        singles.append(found["singles"])
        providers.append(found["provider"])
    traced = run_stage("hessian/0", "hessian", basics, SPANS["hessian"])
    observer.entered("dependency", SPANS["dependency"][0])
    tested = run_stage("dependency/0", "dependency", {**basics, "singles": singles}, SPANS["dependency"])
    parts = {"singles": singles, "traces": traced["traces"], "hessian_samples": traced["samples"], "tests": tested["tests"]}
    parts["providers"] = sorted({str(name) for name in (*providers, traced["provider"], tested["provider"])})
    return parts | run_stage("orders", "orders", {**basics, **parts}, SPANS["orders"])


def probe_shares(samples: int, batch: int, forward_seconds: float) -> tuple[tuple[int, int], ...]:
    """Return the samples [start, stop) of each sensitivity stage, so that one takes about CHUNK_SECONDS.

    Args:
        samples: Calibration samples; the first MAX_PROBE_SAMPLES are probed.
        batch: Samples in one call; shares are whole batches.
        forward_seconds: One forward pass of one sample for every decision, all processors at work.
    """
    used = min(samples, max(MAX_PROBE_SAMPLES // batch, 1) * batch)
    size = max(1, int(CHUNK_SECONDS / max(forward_seconds * SHARE_OF_FORWARD * batch, 1e-9))) * batch
    return tuple((start, min(start + size, used)) for start in range(0, used, size))


def _ladders(
    basics: Mapping[str, object], run_stage: RunStage, observer: Observer, forecasts: list[dict[str, object]]
) -> Callable[[Sequence[Trial]], Iterator[Ladder]]:
    """Return what the strategy proposes. What it may ask for is predicted by a stage, under a name of its own each time."""
    asked = itertools.count()

    def predicted(trials: Sequence[Trial]) -> tuple[Ladder, ...] | None:
        time = next(asked)
        place = _search_span(len(trials))
        observer.entered("refine" if time else "search", place[0])
        kernels = {"kernels_ms": forecasts[0]["kernels_ms"]} if forecasts else {}
        request = {**basics, **kernels, "trials": json_from_value(tuple(trials))}
        name = ("search", "refine")[time] if time < 2 else f"refine/{time}"
        try:
            forecasts.append(run_stage(f"forecast/{name}", "forecast", request, (place[0], place[0])))
        except StageCancelledError:
            raise
        except EngineError:  # it builds and runs engines too
            return None
        return value_from_json(tuple[Ladder, ...], forecasts[-1]["ladders"])

    return partial(default_strategy().propose, Evidence(lambda: _prefixes(basics), predicted))


def _prefixes(basics: Mapping[str, object]) -> Iterator[Ladder]:
    """Yield the prefixes of every order where there is nothing to predict latency from: each may win."""
    for name, order in cast(Mapping[str, object], basics["orders"]).items():
        rungs = prefixes(value_from_json(tuple[Decision, ...], order))
        yield Ladder(name, rungs, (0.0,) * len(rungs))


def _search(
    job: JobRequest,
    capabilities: Capabilities,
    inspected: Mapping[str, object],
    ranged: Mapping[str, object],
    ladders: Callable[[Sequence[Trial]], Iterator[Ladder]],
    spent: _Spent,
) -> Search:
    layers, metric = cast(Sequence[str], inspected["layers"]), Metric(str(inspected["metric"]))
    able = value_from_json(dict[str, tuple[Precision, ...]], ranged["able"])
    uniform = uniform_engines(able, capabilities.low)
    return Search(
        uniform,
        ladders,
        lambda low: fingerprint_of(layers, low, capabilities.baseline),
        max_trials=job.config.search.max_trials,
        max_seconds=job.config.search.max_seconds,
        seconds=lambda: spent.seconds,
        products=products_engine(uniform, cast(Sequence[str], inspected["sums"])),
        view=lambda trials: _seen(_selection(trials, job.config, metric), job.config, metric),
    )


def _trial(search: Search, proposal: Proposal, basics: Mapping[str, object], run_stage: RunStage) -> Trial:
    """Return the trial of a proposal; one that cannot be built or run is a failed trial, not a failed job."""
    index = len(search.trials)
    request = {**basics, "low": json_from_value(proposal.low), "index": index, "order": proposal.order}
    fingerprint = search.fingerprint(proposal.low)
    try:
        found = run_stage(f"trial/{fingerprint}", "trial", request, _search_span(index))
    except StageCancelledError:
        raise
    except EngineError as error:
        return failed_trial(index, fingerprint, dict(proposal.low), proposal.order, error.detail, error.seconds)
    return value_from_json(Trial, found["trial"])


def _search_span(index: int) -> tuple[float, float]:
    """Return the progress that a trial covers. How many there will be is not known: each covers 12% of what is left."""
    low, high = SPANS["search"]
    return high - (high - low) * 0.88**index, high - (high - low) * 0.88 ** (index + 1)


def _selection(trials: Sequence[Trial], config: Config, metric: Metric) -> Selection:
    """Return whether half of the validation samples is enough to settle the budget, for an engine that flips as many as all-low does."""
    flips = [trial.on_all for trial in trials[:2] if trial.on_all is not None]
    if not flips:
        return Selection.SHARED
    left = flips[-1].samples - round(flips[-1].samples * SEARCH_SHARE)
    confidence = config.accuracy.confidence or DEFAULT_CONFIDENCE
    binary = all(accuracy.binary for accuracy in flips)
    settled = can_settle(left, flips[-1].flips, config.accuracy.budget, confidence, metric=metric, is_binary=binary)
    return Selection.HELD_OUT if settled else Selection.SHARED


def _seen(selection: Selection, config: Config, metric: Metric) -> Callable[[Trial], Accuracy | None]:
    """Return which accuracy of a trial the search looks at: never the samples that are kept for the verdict."""

    def view(trial: Trial) -> Accuracy | None:
        found = trial.on_search if selection is Selection.HELD_OUT else trial.on_all
        if found is None or config.accuracy.confidence is None:
            return found
        return certain(found, config.accuracy.budget, metric, config.accuracy.confidence)

    return view


class _Spent:
    """Runs stages and adds up the seconds that their results and their errors say they took. Those are recorded: a replay has the same."""

    def __init__(self, run_stage: RunStage) -> None:
        self._run_stage = run_stage
        self.seconds = 0.0

    def __call__(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        try:
            result = self._run_stage(name, stage, request, span)
        except EngineError as error:
            self.seconds += error.seconds
            raise
        self.seconds += cast(float, result.get("seconds", 0.0))
        return {key: value for key, value in result.items() if key != "seconds"}
