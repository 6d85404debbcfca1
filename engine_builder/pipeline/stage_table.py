"""The stages of a job: one row each. All that is known of a stage but its code, which is imported in the child that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine_builder.pipeline.stage import Stage, StageJson, in_child
from engine_builder.records.trial import Trial
from engine_builder.stage_io.engines import (
    BaselineRequest,
    BaselineResult,
    PredictRequest,
    PredictResult,
    Prepared,
    PrepareRequest,
    RebuildRequest,
    RouteRequest,
    RouteResult,
    StripRequest,
    StripResult,
    TrialRequest,
    VerdictRequest,
    VerdictResult,
)
from engine_builder.stage_io.measuring import (
    BiasesRequest,
    ConfidenceRequest,
    ConfidenceResult,
    CorrectRequest,
    CorrectResult,
    HessianRequest,
    HessianResult,
    InspectRequest,
    InspectResult,
    InteractionsRequest,
    InteractionsResult,
    RangesRequest,
    RangesResult,
    RankRequest,
    RankResult,
    SensitivityRequest,
    SensitivityResult,
)
from engine_builder.stage_io.offers import OffersRequest, OffersResult
from engine_builder.stage_io.outcome import JobOutcome, ReportRequest

_PLACE = "engine_builder.stages"

# The corrections (correct) and the analysis (sensitivity to rank) are measured when the search needs them; the rows of the analysis tell
# how its part of the search's progress is shared.
INSPECT = Stage("inspect", f"{_PLACE}.inspect:inspect", InspectRequest, InspectResult, (0.0, 0.03), is_kept=True)
CONFIDENCE = Stage("confidence", f"{_PLACE}.confidence:check_confidence", ConfidenceRequest, ConfidenceResult, (0.03, 0.03))
RANGES = Stage("ranges", f"{_PLACE}.ranges:ranges", RangesRequest, RangesResult, (0.03, 0.05), is_kept=True)
BASELINE = Stage("baseline", f"{_PLACE}.baseline:baseline", BaselineRequest, BaselineResult, (0.05, 0.06), times_engines=True)
BIASES = Stage("biases", f"{_PLACE}.correct:biases", BiasesRequest, CorrectResult, (0.06, 0.07), is_kept=True)
CORRECT = Stage("correct", f"{_PLACE}.correct:correct", CorrectRequest, CorrectResult, (0.07, 0.09), is_kept=True)
SENSITIVITY = Stage("sensitivity", f"{_PLACE}.probe:sensitivity", SensitivityRequest, SensitivityResult, (0.09, 0.28), is_kept=True)
HESSIAN = Stage("hessian", f"{_PLACE}.probe:hessian", HessianRequest, HessianResult, (0.28, 0.34), is_kept=True)
INTERACTIONS = Stage("interactions", f"{_PLACE}.probe:interactions", InteractionsRequest, InteractionsResult, (0.34, 0.41), is_kept=True)
RANK = Stage("rank", f"{_PLACE}.rank:rank", RankRequest, RankResult, (0.41, 0.42))
PREPARE = Stage("prepare", f"{_PLACE}.ahead.prepare:prepare", PrepareRequest, Prepared, (0.09, 0.88), times_engines=True)
TRIAL = Stage("trial", f"{_PLACE}.trial:trial", TrialRequest, Trial, (0.09, 0.88), times_engines=True, took=lambda trial: trial.seconds)
PREDICT = Stage("predict", f"{_PLACE}.predict:predict", PredictRequest, PredictResult, (0.09, 0.88), times_engines=True)
ROUTE = Stage("route", f"{_PLACE}.after_search.route:route", RouteRequest, RouteResult, (0.88, 0.92), times_engines=True)
REBUILD = Stage("rebuild", f"{_PLACE}.rebuild:rebuild", RebuildRequest, Trial, (0.92, 0.95), times_engines=True)
VERDICT = Stage("verdict", f"{_PLACE}.verdict:verdict", VerdictRequest, VerdictResult, (0.95, 0.97), times_engines=True)
OFFERS = Stage("offers", f"{_PLACE}.after_search.offers:offers", OffersRequest, OffersResult, (0.97, 0.98), times_engines=True)
STRIP = Stage("strip", f"{_PLACE}.after_search.strip:strip", StripRequest, StripResult, (0.98, 0.99), times_engines=True)
REPORT = Stage("report", f"{_PLACE}.report:report", ReportRequest, JobOutcome, (0.99, 1.0), imports_much=True)

TABLE: tuple[Stage[Any, Any], ...] = (
    INSPECT,
    CONFIDENCE,
    RANGES,
    BASELINE,
    BIASES,
    CORRECT,
    SENSITIVITY,
    HESSIAN,
    INTERACTIONS,
    RANK,
    PREPARE,
    TRIAL,
    PREDICT,
    ROUTE,
    REBUILD,
    VERDICT,
    OFFERS,
    STRIP,
    REPORT,
)

STAGES: Mapping[str, StageJson] = {stage.name: in_child(stage) for stage in TABLE}  # what a child process looks up
KEPT_STAGES = frozenset(stage.name for stage in TABLE if stage.is_kept)
ENGINE_STAGES = frozenset(stage.name for stage in TABLE if stage.times_engines)
# What stages import, some of it late: a process that forks them has it all beforehand.
LIBRARIES = ("numpy", "numpy.random", "onnx", "onnx_ir", "onnxruntime", "scipy.special", "engine_builder.qdq.onnxruntime_dialect")
