"""The stage ``report``: everything that was measured in ``report.json`` and ``report.html``, and the outcome as the job's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from calibration.accuracy.metrics import OutputKind
from calibration.codec import json_from_value, value_from_json
from engine_builder.backends.achieved_precision import Reached
from engine_builder.backends.base import Capabilities, Source
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.config.config import config_json
from engine_builder.engines.factory import kept_timing_cache
from engine_builder.errors import BuildError
from engine_builder.interchange.triton_onnx import onnx_repository
from engine_builder.interchange.triton_plan import plan_repository
from engine_builder.profiling.predictions import predictions
from engine_builder.qdq.exactness import engine_exact_on
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.records.corrections import Repair
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.reporting.baseline_words import repair_in_words
from engine_builder.reporting.body.job_result import (
    JobResult,
    Outcome,
    PredictedSpeedup,
    ReportedEngine,
    ShippedEngine,
    reported_verdict,
    result_json,
)
from engine_builder.reporting.body.layer_facts import dependency_map, measured_pairs, reported_layers
from engine_builder.reporting.body.report_body import DataFacts, ReportBody, body_json
from engine_builder.reporting.body.search_facts import FinalTiming, ProbeSummary
from engine_builder.reporting.body.stage_results import VerdictResult
from engine_builder.reporting.float_only import float_only, float_only_note
from engine_builder.reporting.page import render
from engine_builder.reporting.reason import reason
from engine_builder.search.measured_front import pareto_front
from engine_builder.search.search_space import BASELINE
from engine_builder.stages.report_inputs import ReportInputs, read_inputs
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace


def report(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Write the artifacts and return ``result``, ``engine`` and ``artifacts`` of the job.

    Args:
        request: Everything the pipeline gathered.
        context: Where the artifacts go.
    """
    given = read_inputs(request, context)
    workspace, judgement = context.workspace, given.judgement
    chosen = next((trial for trial in given.finalists if trial.fingerprint == judgement.chosen), None)
    precisions = given.inspection.baseline_precisions | (chosen.precisions if chosen else {})
    assignment = PrecisionAssignment(tuple(precisions.items()))
    engine = judgement.engine or given.model
    repository, why_none = _triton(engine, judgement.tensors, given.inspection, context)
    body = _body(given, chosen, assignment, why_none, context)
    artifacts = {
        "report.json": workspace.write_json("report.json", body_json(body)),
        "report.html": workspace.write_bytes("report.html", render(body).encode()),
        "assignment.json": workspace.write_json("assignment.json", assignment.as_json()),
    }
    if judgement.explicit is not None:
        artifacts["model.explicit.onnx"] = judgement.explicit
    cache = kept_timing_cache(workspace)
    if cache is not None:
        artifacts["timing.cache"] = cache
    if repository is not None:
        artifacts["triton.zip"] = repository
    return {"result": result_json(body.result), "engine": json_from_value(engine), "artifacts": json_from_value(artifacts)}


def _body(
    given: ReportInputs, chosen: Trial | None, assignment: PrecisionAssignment, why_no_repository: Sequence[str], context: StageContext
) -> ReportBody:
    """Return everything that was measured.

    Args:
        given: What the pipeline gathered.
        chosen: The trial that is kept, None where that is the baseline.
        assignment: The precision that each layer got.
        why_no_repository: A note where there is no Triton repository.
        context: Its workspace holds what the builder said of layers.
    """
    found, table, workspace = given.inspection, given.table, context.workspace
    capabilities = backend_for(given.config.target, given.config.gpu, table=targets_of(context)).capabilities
    stay_float = float_only(found.layers, given.ranges)
    shown = chosen or next((trial for trial in given.trials if trial.reached is not None and trial.low_layers), None)
    reached = _reached(None if shown is None else shown.reached, workspace)
    return ReportBody(
        result=_result(given, chosen, capabilities, workspace),
        config=config_json(given.config),
        notes=(*found.notes, *float_only_note(stay_float), *given.notes, *why_no_repository),
        data=_data(found),
        layers=reported_layers(found.layers, table, assignment, stay_float),
        baseline_repair=found.baseline_repair,
        baseline_reached=_reached(found.baseline_reached, workspace),
        repairs=(*given.repairs, *_bias_repairs(chosen, given.trials)),
        traces=table.traces,
        dependencies=measured_pairs(given.tests),
        dependency_map=dependency_map(table, np.asarray(given.pairs["interaction"], dtype=np.float64), assignment),
        reached=reached,
        reached_in=None if shown is None or reached is None else shown.index,
        orders=given.orders,
        chosen=None if chosen is None else chosen.fingerprint,
        trials=given.trials,
        front=tuple(trial.fingerprint for trial in pareto_front(given.trials)),
        search=given.search,
        forecasts=given.forecasts,
        predictions=predictions(given.trials, table, given.pairs, given.forecasts),
        finalists=given.judgement.judged,
        final_timing=FinalTiming(given.judgement.latency_ms, given.judgement.spread),
        probes=ProbeSummary(table.samples, table.hessian_samples, len(table.rows), table.plain_forwards, given.providers),
        kernel_times=capabilities.kernel_times,
    )


def _triton(
    engine: FileRef, tensors: EngineTensors | None, found: Inspection, context: StageContext
) -> tuple[FileRef | None, tuple[str, ...]]:
    """Return the Triton repository of an engine, or None and a note that says why there is none."""
    source, output = context.workspace.path(engine), context.scratch / "triton.zip"
    may_batch = found.axes.are_first and not found.is_batch_fixed
    try:
        if engine.file.endswith(".onnx"):
            batch = max(found.batch, found.timing_batch) if may_batch else 0  # what this job ran the model with
            repository = onnx_repository(source, output, max_batch_size=batch)
        elif tensors is not None:
            repository = plan_repository(source, tensors, output, may_batch=may_batch)
        else:
            return None, ("no triton.zip: Triton loads no plans of this target",)
    except BuildError as error:
        return None, (f"no {error.detail}",)
    return context.workspace.copy(repository, "triton.zip"), ()


def _result(given: ReportInputs, chosen: Trial | None, target: Capabilities, workspace: Workspace) -> JobResult:
    """Return the job's ``result`` as the HTTP contract gives it."""
    found, judgement, source = given.inspection, given.judgement, Source(target.latency_source)
    baseline = ReportedEngine(
        latency_ms=judgement.latency_ms[BASELINE],
        accuracy=judgement.baseline_accuracy,
        size_bytes=judgement.baseline_size_bytes,
        precisions=judgement.baseline_precisions,
    )
    kept = baseline if chosen is None else _chosen_engine(found, judgement, chosen)
    engine = judgement.engine or given.model
    return JobResult(
        outcome=Outcome.BASELINE_KEPT if chosen is None else Outcome.IMPROVED,
        reason=reason(
            given.trials,
            given.finalists,
            judgement,
            given.table,
            confidence=given.config.accuracy.confidence,
            ended=given.search.ended,
        ),
        latency_source=source,
        baseline=replace(baseline, repaired=None if found.baseline_repair is None else repair_in_words(found.baseline_repair)),
        chosen=kept,
        verdict=reported_verdict(judgement.verdict),
        engine=ShippedEngine(
            name=target.engine_name,
            sha256=engine.sha256,
            size_bytes=kept.size_bytes,
            exact_on=None if chosen is None else engine_exact_on(workspace.path(engine)),
        ),
        warnings=found.warnings,
        environment=judgement.environment,
        speedup=1.0 / judgement.ratio if source is Source.MEASURED else None,
        predicted_speedup=_predicted_speedup(judgement, chosen) if source is Source.PREDICTED else None,
    )


def _chosen_engine(found: Inspection, judgement: VerdictResult, chosen: Trial) -> ReportedEngine:
    assert chosen.size_bytes is not None  # it was built
    counts = Counter(chosen.precisions.get(name, precision).value for name, precision in found.baseline_precisions.items())
    return ReportedEngine(
        judgement.latency_ms[chosen.fingerprint], judgement.verdict.engine, chosen.size_bytes, dict(sorted(counts.items()))
    )


def _predicted_speedup(judgement: VerdictResult, chosen: Trial | None) -> PredictedSpeedup:
    """Return baseline median / chosen median with its range; that of the baseline itself is certain."""
    ratio, error = judgement.ratio, 0.0 if chosen is None else judgement.least_gain
    return PredictedSpeedup(1.0 / ratio, (1.0 / (ratio * (1.0 + error)), 1.0 / (ratio * (1.0 - error))))


def _reached(ref: FileRef | None, workspace: Workspace) -> tuple[Reached, ...] | None:
    return None if ref is None else value_from_json(tuple[Reached, ...], workspace.read_json(ref))


def _bias_repairs(chosen: Trial | None, trials: Sequence[Trial]) -> tuple[Repair, ...]:
    """Return what correcting biases was worth for the engine that is kept, or for the one with every layer low."""
    trial = chosen or next((trial for trial in trials if trial.order == "all_low"), None)
    return () if trial is None or trial.bias is None else (trial.bias,)


def _data(found: Inspection) -> DataFacts:
    return DataFacts(
        metric=found.metric,
        outputs=found.kinds,
        output_weights=_weights(found),
        metric_model=found.metric_model.sha256 if found.metric_model is not None else None,
        calibration_samples=found.calibration_samples,
        validation_samples=found.validation_samples,
        validation_held_out_of_calibration=found.held_out,
        calibration_is_validation=found.shared_data,
        float_type=found.float_type,
        timing_batch=found.timing_batch,
    )


def _weights(found: Inspection) -> dict[str, float]:
    """Return the share of each compared output in the loss, by name: 0..1, 1 in all."""
    given = dict(zip(found.output_names, found.weights, strict=True))
    kept = {name: given[name] for name, kind in zip(found.output_names, found.kinds, strict=False) if kind is not OutputKind.IGNORE}
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}
