"""The job's ``result``: the two engines side by side, the verdict and what was shipped, as the HTTP contract gives it."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from calibration.accuracy.kinds.part import JudgedOutput
from calibration.accuracy.metrics import BudgetKey, Metric, OutputKind
from calibration.accuracy.verdict import AccuracyVerdict, Answer, IntervalMethod, Selection
from engine_builder.backends.base import Source
from engine_builder.config.config import Config
from engine_builder.config.objective import Objective
from engine_builder.records.build_route import TriedRoutes
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.fields_json import fields_json
from engine_builder.reporting.body.reported_stripping import ReportedStripping
from engine_builder.stage_io.engines import FinalLatency, VerdictResult, is_reached


class Outcome(enum.StrEnum):
    """How a job ended."""

    IMPROVED = "improved"
    BASELINE_KEPT = "baseline_kept"
    BUILT = "built"  # the engine of the user's own assignment, whatever came of it


AS_GIVEN = "This is the engine of the assignment that was given, built without a search; its accuracy and speed decided nothing."


def outcome_of(config: Config, chosen: Trial | None) -> Outcome:
    """Return how a job ended.

    Args:
        config: Its settings.
        chosen: The trial that is kept, None where that is the baseline.
    """
    if config.assignment_only:
        return Outcome.BUILT
    return Outcome.BASELINE_KEPT if chosen is None else Outcome.IMPROVED


@dataclass(frozen=True, slots=True)
class ReportedEngine:
    """The baseline or the engine that is kept."""

    latency_ms: FinalLatency
    accuracy: float  # mean score
    size_bytes: int
    precisions: Mapping[str, int]  # layers of each precision
    repaired: str | None = None  # of a baseline that misses the budget by itself: why and how it was repaired, in words
    largest_change: float | None = None  # of a score on a validation sample, where the metric tells decisions only
    nearest_kept: float | None = None  # share of validation samples that keep their nearest neighbour, where an output may be an embedding


@dataclass(frozen=True, slots=True)
class ReportedVerdict:
    """What the verdict says of the engine that is kept; the fields are those of ``calibration.accuracy.verdict.AccuracyVerdict``."""

    answer: Answer
    metric: Metric
    drop: float
    interval: tuple[float, float]
    confidence: float
    n: int
    selection: Selection
    flips: int
    budget: float
    probability_over_budget: float
    samples_needed: int | None
    method: IntervalMethod


@dataclass(frozen=True, slots=True)
class PredictedSpeedup:
    """Baseline's latency / engine's, of predicted latencies."""

    value: float
    range: tuple[float, float]  # by the error of a prediction


@dataclass(frozen=True, slots=True)
class ShippedEngine:
    """The engine's file."""

    name: str
    sha256: str
    size_bytes: int
    exact_on: str | None  # the processors on which its integer sums are exact, in words; None where the file does not say
    opsets: Mapping[str, int] = field(default_factory=dict)  # that a runtime must have, by domain; empty for a plan


@dataclass(frozen=True, slots=True)
class TakenOutput:
    """What an output was taken for."""

    name: str
    kinds: tuple[OutputKind, ...]  # several: all are judged, since the evidence leaves them open, or parts of the output are of each
    why: str  # what tells it
    measure: str  # in words
    key: str  # of the configuration, which says otherwise
    in_words: str  # all of it, a line


@dataclass(frozen=True, slots=True)
class ReportedBudget:
    """What one budget would give."""

    budget: Mapping[BudgetKey, float]
    in_words: str
    is_asked: bool  # whether it is the job's own
    fingerprint: str | None  # of the engine; None: nothing faster than the baseline is inside the budget
    speedup: float | None  # as ``latency_source`` has it
    verdict: ReportedVerdict | None


@dataclass(frozen=True, slots=True)
class OfferedFile:
    """An offered engine's file, by its name among the artifacts."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ReportedOffer:
    """An engine on the measured front."""

    fingerprint: str
    speedup: float  # 1 / ``ratio``
    ratio: float  # latency / the baseline's
    mad: float | None  # median absolute deviation of ``ratio``; None where latency is predicted
    accuracy: float  # mean score
    size_bytes: int
    precisions: Mapping[str, int]  # layers of each precision
    keeps: Mapping[BudgetKey, float]  # the tightest budget that it is more likely inside than not
    in_words: str  # ``keeps``
    verdict: ReportedVerdict  # at ``keeps``
    assignment: str  # name of the file of its precisions among the artifacts
    file: OfferedFile | None
    no_file: str | None  # why there is none, and what to do about it


@dataclass(frozen=True, slots=True)
class ReportedOffers:
    """What other budgets would give."""

    in_words: str
    budgets: tuple[ReportedBudget, ...]  # the loosest first
    engines: tuple[ReportedOffer, ...]  # the fastest first


@dataclass(frozen=True, slots=True)
class ReportedObjective:
    """How fast the engine was to be, where the question was that."""

    min_speedup: float | None
    max_latency_ms: float | None
    in_words: str
    is_reached: bool  # whether what is kept is fast enough


@dataclass(frozen=True, slots=True)
class ShippedRoute:
    """The build route that the engine that is kept was built by."""

    route: str  # as the builder takes it: ``IBuilderConfig.build_route``
    trtexec: str  # what repeats it there, with ``model.explicit.onnx``
    speedup: float  # latency of the same precisions by the builder's own route / that of the engine, timed in turns
    error: float  # standard error of ``speedup``


@dataclass(frozen=True, slots=True)
class JobResult:
    """The outcome. Exactly one of ``speedup`` and ``predicted_speedup`` is given, the former where latencies are measured."""

    outcome: Outcome
    reason: str  # one sentence
    latency_source: Source
    baseline: ReportedEngine
    chosen: ReportedEngine
    verdict: ReportedVerdict
    engine: ShippedEngine
    warnings: tuple[str, ...]  # what is likely wrong with the user's data
    environment: Mapping[str, object]  # processor, versions and threads: what a target says of itself
    offers: ReportedOffers
    speedup: float | None = None  # latency of the baseline / that of the chosen engine, by the ratios of the same rounds
    speedup_spread: float | None = None  # median absolute deviation of ``speedup`` over groups of rounds; 0 of the baseline itself
    predicted_speedup: PredictedSpeedup | None = None
    outputs: tuple[TakenOutput, ...] = ()  # that are compared with the float model's: what each was taken for
    none_ran: str | None = None  # why no quantized engine could be built or run; None where one could, or none was tried
    objective: ReportedObjective | None = None  # None where the fastest engine inside the accuracy budget was asked for
    folded: str | None = None  # which constants of the model became parts of its layers, in words; None of none
    build_route: ShippedRoute | None = None  # None: the builder's own
    stripped: ReportedStripping | None = None  # None: no plan without its weights was asked for

    def __post_init__(self) -> None:
        """Refuse a result with no speedup, or with two."""
        if (self.speedup is None) is (self.predicted_speedup is None):
            raise ValueError(f"speedup {self.speedup} and predicted_speedup {self.predicted_speedup} found, expected exactly one")


def taken_outputs(judged: Sequence[JudgedOutput]) -> tuple[TakenOutput, ...]:
    """Return what is told of how outputs are judged."""
    return tuple(TakenOutput(one.name, one.kinds, one.why, one.words, one.key, one.sentence) for one in judged)


def reported_verdict(verdict: AccuracyVerdict) -> ReportedVerdict:
    """Return what the report gives of a verdict; the scores themselves stand with the engines."""
    return ReportedVerdict(
        answer=verdict.answer,
        metric=verdict.metric,
        drop=verdict.drop,
        interval=verdict.interval,
        confidence=verdict.confidence,
        n=verdict.n,
        selection=verdict.selection,
        flips=verdict.flips,
        budget=verdict.budget,
        probability_over_budget=verdict.probability_over_budget,
        samples_needed=verdict.samples_needed,
        method=verdict.method,
    )


def reported_objective(objective: Objective, judged: VerdictResult) -> ReportedObjective:
    """Return what the report gives of an objective."""
    return ReportedObjective(objective.min_speedup, objective.max_latency_ms, objective.in_words, is_reached(objective, judged))


def shipped_route(fingerprint: str | None, routes: TriedRoutes | None) -> ShippedRoute | None:
    """Return the route of the engine with this fingerprint; None where it has the builder's own."""
    tried = () if routes is None else routes.tried
    one = next((one for one in tried if one.fingerprint == fingerprint), None)
    if one is None or one.relative is None:
        return None
    ratio = one.relative.ratio
    return ShippedRoute(one.route, f"--setBuildRoute={shlex.quote(one.route)}", 1.0 / ratio, one.relative.error / ratio**2)


def route_in_words(route: ShippedRoute | None) -> str:
    """Return what a build route is worth, with a space behind it; empty of the builder's own."""
    if route is None:
        return ""
    return f"It was built by the build route '{route.route}', which makes it {route.speedup:.2f} times as fast as the builder's own. "


def result_json(result: JobResult) -> dict[str, object]:
    """Return a result as ``result.json`` and ``report.json`` hold it: what does not apply is no key at all."""
    engines = {
        name: fields_json(engine, "repaired", "largest_change", "nearest_kept")
        for name, engine in (("baseline", result.baseline), ("chosen", result.chosen))
    }
    return fields_json(result, *_WHERE_THEY_APPLY) | engines


_WHERE_THEY_APPLY = (
    "speedup",
    "speedup_spread",
    "predicted_speedup",
    "objective",
    "none_ran",
    "folded",
    "build_route",
    "stripped",
)
