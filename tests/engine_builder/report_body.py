"""A small report with something in every part of it, for the tests of the page, its tables and its plots."""

from __future__ import annotations

from dataclasses import replace

from calibration.accuracy.metrics import BudgetKey, Metric, OutputKind
from calibration.accuracy.verdict import AccuracyVerdict, Answer, IntervalMethod, Selection
from calibration.graph.layers import LayerKind
from calibration.number_formats.layer_precision import LayerPrecision
from calibration.number_formats.precision import Precision
from engine_builder.backends.achieved_precision import AchievedPrecision, Rule
from engine_builder.backends.base import Source
from engine_builder.records.corrections import Correction, CorrectionKind
from engine_builder.records.float_plan import BaselineFallback, BlockLoss, FloatAttempt
from engine_builder.records.trial import Accuracy, Latency, Trial, failed_trial
from engine_builder.reporting.body.job_result import (
    JobResult,
    OfferedFile,
    Outcome,
    ReportedBudget,
    ReportedEngine,
    ReportedOffer,
    ReportedOffers,
    ReportedVerdict,
    ShippedEngine,
    reported_verdict,
)
from engine_builder.reporting.body.layer_facts import DependencyMap, MeasuredPair, ReportedLayer
from engine_builder.reporting.body.report_body import DataFacts, ReportBody
from engine_builder.reporting.body.search_facts import FinalTiming, Prediction, ProbeSummary
from engine_builder.search.loss_model import LossCheck
from engine_builder.stage_io.engines import FinalLatency, FittedTimes, JudgedTrial, PredictedSequence, PredictResult, TrialSaid
from engine_builder.stage_io.outcome import SearchSummary
from engine_builder.timing import RelativeLatency

FP32, FP16, INT8 = Precision.FP32, Precision.FP16, Precision.INT8
BUDGET = 0.8975  # the least score
FULL_VERDICT = AccuracyVerdict(
    answer=Answer.MET_ON_SAMPLE,
    metric=Metric.TOP1,
    baseline=0.9,
    engine=0.899,
    drop=0.001,
    interval=(-0.002, 0.004),
    confidence=0.95,
    method=IntervalMethod.SCORE_AND_EXACT,
    n=400,
    flips=3,
    budget=0.0025,
    probability_over_budget=0.2,
    samples_needed=17_000,
    selection=Selection.HELD_OUT,
)
VERDICT = reported_verdict(FULL_VERDICT)


def trial(index: int, low_layers: int, ratio: float, excess: float, order: str = "frontier") -> Trial:
    accuracy = Accuracy(BUDGET + excess, 0.9, excess, 0.0, binary=True, samples=400)
    quantized = {f"low{place}": INT8 for place in range(low_layers)}
    latency = Latency(10.0 * ratio, 11.0 * ratio, 0.05, 100, 10.0, 0.05, ratio)
    return Trial(index, f"f{index}", quantized, order, low_layers, accuracy, accuracy, 0.001 * low_layers, latency, 1000, None, 1.0, None)


def failed(index: int, failure: str = "no such kernel", order: str = "frontier") -> Trial:
    return failed_trial(index, f"f{index}", {"conv": INT8}, order, failure)


def layer(name: str, loss: float | None = 0.01, precision: Precision = INT8, hessian: float | None = None) -> ReportedLayer:
    return ReportedLayer(
        name=name,
        op_type="Conv",
        kind=LayerKind.WEIGHTED,
        precision=precision,
        macs=1_234_567,
        weights=10,
        loss=loss,
        loss_error=0.2 * loss if loss is not None else None,
        hessian=hessian,
        hessian_error=0.1 * hessian if hessian is not None else None,
    )


def prediction(index: int, loss: float, ratio: float | None = None) -> Prediction:
    return Prediction(index, f"f{index}", loss, 0.1 * loss, loss, 0.2 * loss, ratio)


def engine(median: float, accuracy: float, size_bytes: int, precisions: dict[str, int]) -> ReportedEngine:
    return ReportedEngine(FinalLatency(median, 1.1 * median, 0.05, 100), accuracy, size_bytes, precisions)


OFFERS = ReportedOffers(
    in_words="at 99%: 1.43x; at 99.9% (asked for): 1.25x; nothing faster is inside 99.99%",
    budgets=(
        ReportedBudget({BudgetKey.MIN_RELATIVE: 0.99}, "99%", is_asked=False, fingerprint="f1", speedup=1.43, verdict=VERDICT),
        ReportedBudget({BudgetKey.MIN_RELATIVE: 0.999}, "99.9%", is_asked=True, fingerprint="f2", speedup=1.25, verdict=VERDICT),
        ReportedBudget({BudgetKey.MIN_RELATIVE: 0.9999}, "99.99%", is_asked=False, fingerprint=None, speedup=None, verdict=None),
    ),
    engines=(
        ReportedOffer(
            fingerprint="f1",
            speedup=1.43,
            ratio=0.7,
            mad=0.004,
            accuracy=0.8955,
            size_bytes=900_000,
            precisions={"fp32": 2, "int8": 2},
            keeps={BudgetKey.MIN_RELATIVE: 0.995},
            in_words="99.5%",
            verdict=VERDICT,
            assignment="front/f1/assignment.json",
            file=OfferedFile("front/f1/engine.onnx", "b" * 64),
            no_file=None,
        ),
        ReportedOffer(
            fingerprint="f2",
            speedup=1.25,
            ratio=0.8,
            mad=0.003,
            accuracy=0.899,
            size_bytes=1_000_000,
            precisions={"fp32": 3, "int8": 1},
            keeps={BudgetKey.MIN_RELATIVE: 0.9988},
            in_words="99.88%",
            verdict=VERDICT,
            assignment="front/f2/assignment.json",
            file=None,
            no_file="building it once more failed: ask for its budget",
        ),
    ),
)
NO_OFFERS = ReportedOffers("no engine that was tried is faster than the baseline, whatever the budget", (), ())
RESULT = JobResult(
    outcome=Outcome.IMPROVED,
    reason="The fastest.",
    latency_source=Source.MEASURED,
    baseline=engine(10.0, 0.9, 4_000_000, {"fp32": 4}),
    chosen=engine(8.0, 0.899, 1_000_000, {"fp32": 3, "int8": 1}),
    verdict=VERDICT,
    engine=ShippedEngine("engine.onnx", "a" * 64, 1_000_000, "any processor"),
    warnings=("3 samples are the same",),
    environment={"processor": "some CPU", "threads": 1},
    offers=OFFERS,
    speedup=1.25,
    speedup_spread=0.016,
)
REPAIRED = BaselineFallback(
    attempts=(
        FloatAttempt("FP16", {"fp16": 4}, 0.5, fits=False, latency_ms=1.0),
        FloatAttempt("BF16", {"bf16": 4}, None, fits=False, failure="no BF16 here"),
        FloatAttempt("FP16 with blocks in FP32", {"fp16": 3, "fp32": 1}, 0.9, fits=True, latency_ms=1.25),
    ),
    blocks=(BlockLoss("conv", 3, 0.25, 0.02, FP32), BlockLoss("gemm", 1, 0.001, 0.0001, FP16)),
    kept="FP16 with blocks in FP32",
    fits=True,
)
PREDICTION = PredictResult(
    ladders=(PredictedSequence("frontier", ({}, {"conv": INT8}), (1.0, 0.75), ("f0", "f2")),),
    kernels_ms={"conv": {"baseline": 1.0, "int8": 0.5}, "gemm": {"baseline": 0.4, "int8": 0.3}},
    time_model=FittedTimes(0.5, {"int8": 0.01}, 3),
    loss_model=LossCheck(1.5, 2, 1, 0.3),
    predicted={"f2": TrialSaid(0.75, 0.001, 0.0001, 0.0015, 0.0002)},
)
BODY = ReportBody(
    result=RESULT,
    config={"target": "onnxruntime-cpu", "outputs": {"logits": "logits"}},
    notes=("opset 11 converted to 17",),
    data=DataFacts(
        metric=Metric.TOP1,
        outputs=(OutputKind.LOGITS, OutputKind.VALUES),
        output_weights={"logits": 0.75, "values": 0.25},
        metric_model=None,
        calibration_samples=60,
        validation_samples=400,
        validation_held_out_of_calibration=False,
        calibration_is_validation=False,
        float_type=FP32,
        timing_batch=8,
    ),
    layers=(layer("conv", 0.01, hessian=0.02), layer("gemm", 0.1, FP32, hessian=0.05)),
    baseline_repair=REPAIRED,
    baseline_reached=(AchievedPrecision("conv", FP32, FP32, "float kernel", None),),
    repairs=(
        Correction(CorrectionKind.SMOOTH_QUANT, ("conv", "gemm"), 0.2, 0.125, 0.01, 8, kept=True),
        Correction(CorrectionKind.SMOOTH_QUANT, ("head",), 0.3, 0.4, 0.02, 8, kept=False),
    ),
    traces=(),
    dependencies=(MeasuredPair("conv", "gemm", 0.1, 0.01, 64),),
    dependency_map=DependencyMap(("conv", "gemm"), ((), (0.1,)), ("weak", "weaker")),
    reached=(AchievedPrecision("conv", INT8, INT8, "integer kernel", None), AchievedPrecision("gemm", INT8, None, None, Rule.FOLDED)),
    reached_in=2,
    orders={"loss": (LayerPrecision("conv", INT8), LayerPrecision("gemm", INT8))},
    chosen="f2",
    trials=(trial(0, 0, 1.0, 0.0025, "baseline"), trial(1, 2, 0.7, -0.001, "all_low"), trial(2, 1, 0.8, 0.001)),
    front=("f1", "f2", "f0"),
    search=SearchSummary("nothing left to try", 3, 3.0),
    forecasts=(PREDICTION,),
    predictions=(prediction(0, 0.0), prediction(1, 0.003), prediction(2, 0.001, 0.75)),
    finalists=(JudgedTrial("f2", FULL_VERDICT),),
    final_timing=FinalTiming({"baseline": RESULT.baseline.latency_ms}, {"f2": RelativeLatency(0.8, 0.01)}),
    probes=ProbeSummary(64, 32, 2, 160.0, ("CPUExecutionProvider",)),
    kernel_times=Source.MEASURED,
)
KEPT_BASELINE = replace(  # with nothing in it that may be missing
    BODY,
    result=replace(
        RESULT,
        outcome=Outcome.BASELINE_KEPT,
        reason="None was faster.",
        chosen=RESULT.baseline,
        warnings=(),
        offers=NO_OFFERS,
        speedup=1.0,
        speedup_spread=0.0,
    ),
    notes=(),
    layers=(),
    baseline_repair=None,
    baseline_reached=None,
    repairs=(),
    dependencies=(),
    dependency_map=DependencyMap((), ()),
    reached=None,
    reached_in=None,
    chosen=None,
    finalists=(),
    trials=(),
    front=(),
    forecasts=(),
    predictions=(),
)


def with_result(result: JobResult, body: ReportBody = BODY) -> ReportBody:
    return replace(body, result=result)


def with_verdict(verdict: ReportedVerdict, body: ReportBody = BODY) -> ReportBody:
    return with_result(replace(body.result, verdict=verdict), body)
