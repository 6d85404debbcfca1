"""The whole content of ``report.json``: built once by the stage ``report``, read as a value by the page, its tables and its plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calibration.accuracy.metrics import Metric, OutputKind
from calibration.codec import value_from_json
from calibration.graph_passes.folding.folded_steps import FoldedSteps
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from calibration.sensitivity.records import HessianTrace
from engine_builder.backends.achieved_precision import AchievedPrecision
from engine_builder.backends.base import Source
from engine_builder.records.build_route import TriedRoutes
from engine_builder.records.corrections import Correction
from engine_builder.records.float_plan import BaselineFallback
from engine_builder.records.trial import Trial
from engine_builder.reporting.body.fields_json import fields_json
from engine_builder.reporting.body.job_result import JobResult, result_json
from engine_builder.reporting.body.layer_facts import DependencyMap, MeasuredPair, ReportedLayer
from engine_builder.reporting.body.score_of_loss import ScoreOfLoss
from engine_builder.reporting.body.search_facts import FinalTiming, Prediction, ProbeSummary
from engine_builder.stage_io.engines import JudgedTrial, PredictResult
from engine_builder.stage_io.outcome import SearchSummary

FUNCTION = "a Python function"


@dataclass(frozen=True, slots=True)
class DataFacts:
    """The data that the job was given, and what was made of them."""

    metric: Metric
    outputs: tuple[OutputKind, ...]
    output_weights: Mapping[str, float]  # share of each compared output in the loss, by name: 0..1, 1 in all
    metric_model: str | None  # SHA-256 of the user's own metric; FUNCTION where that is a function of the caller's process
    calibration_samples: int
    validation_samples: int
    validation_held_out_of_calibration: bool
    calibration_is_validation: bool
    float_type: Precision  # of the user's own weights
    timing_batch: int  # samples in one timed call


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """What the chosen engine does to one value of each sample, where values are numbers of their own."""

    error_before: float | None  # root mean squared, of the float model, in spreads of the truth over samples; None where it is not finite
    error_after: float | None  # of the engine
    largest_change: float | None  # on a validation sample, in the value's own unit


@dataclass(frozen=True, slots=True)
class Made:
    """What a report is about, and when and by what it was made."""

    model: str  # name of the user's file
    model_sha256: str
    at: str  # ISO 8601, UTC, to the second
    version: str | None  # of this program; None where it is not installed


@dataclass(frozen=True, slots=True)
class ReportBody:
    """Everything that was measured. A fingerprint is a trial's."""

    result: JobResult
    config: Mapping[str, object]  # the effective configuration, as JSON
    notes: tuple[str, ...]  # what was done to the model and the data, in the user's words
    data: DataFacts
    layers: tuple[ReportedLayer, ...]  # in graph order
    baseline_repair: BaselineFallback | None  # None where the baseline is the target's own
    # what layers of a baseline with a float fallback got; None where the builder lists no kernels
    baseline_reached: tuple[AchievedPrecision, ...] | None
    repairs: tuple[Correction, ...]  # that were tried
    traces: tuple[HessianTrace, ...]
    dependencies: tuple[MeasuredPair, ...]  # the strongest first
    dependency_map: DependencyMap
    reached: tuple[AchievedPrecision, ...] | None  # what layers got in the trial ``reached_in``; None where the builder lists no kernels
    reached_in: int | None
    orders: Mapping[str, tuple[LayerPrecision, ...]]  # by name, the cheapest layer precision first
    chosen: str | None  # fingerprint; None where the baseline was kept
    trials: tuple[Trial, ...]  # in the order in which they were made
    front: tuple[str, ...]  # fingerprints of the trials that no other beats, the fastest first
    search: SearchSummary
    forecasts: tuple[PredictResult, ...]
    predictions: tuple[Prediction, ...]  # of each trial
    finalists: tuple[JudgedTrial, ...]  # safest first
    final_timing: FinalTiming
    probes: ProbeSummary
    kernel_times: Source  # of ``forecasts[].kernels_ms``
    folded: tuple[FoldedSteps, ...] = ()  # constants of the user's model that became parts of its layers
    # what a loss of the outputs costs in the metric, about; None where too few trials tell
    score_of_loss: ScoreOfLoss | None = None
    columns: tuple[ColumnChange, ...] = ()  # of the output's values in their order, with the metrics regression and r2
    made: Made | None = None  # None in reports of older versions
    not_corrected: str | None = None  # why no corrections but those of biases were measured; None where they were, or were not wanted
    trtexec: str | None = None  # the command that builds the engine again; None where it is no plan of TensorRT's
    not_analysed: str | None = None  # why no sensitivities and dependencies were measured; None where they were
    routes: TriedRoutes | None = None  # of the leading engine; None where none was tried


def body_json(body: ReportBody) -> dict[str, object]:
    """Return the content of ``report.json``."""
    return fields_json(body, "made", "score_of_loss", "routes") | {"result": result_json(body.result)}


def body_from_json(data: object) -> ReportBody:
    """Return the body that ``body_json`` wrote.

    Raises:
        TypeError: The data do not have its form.
    """
    return value_from_json(ReportBody, data)
