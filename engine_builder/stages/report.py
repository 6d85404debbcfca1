"""The stage ``report``: everything that was measured in ``report.json`` and ``report.html``, and the outcome as the job's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from calibration.accuracy.metrics import Better
from calibration.codec import value_from_json
from calibration.graph_passes.folding.folded_steps import folded_in_words
from calibration.ranges.range_table import RangeTable
from calibration.sensitivity.records import SensitivityTable
from engine_builder.backends.achieved_precision import AchievedPrecision
from engine_builder.backends.base import Capabilities, Source
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.backends.triton_platform import TritonPlatform
from engine_builder.config.config import config_json
from engine_builder.engines.factory import kept_timing_cache
from engine_builder.errors import BuildError
from engine_builder.evaluation.measurement import LAYERS_NAME
from engine_builder.interchange.plan_files import plan_files
from engine_builder.interchange.triton_onnx import onnx_repository
from engine_builder.interchange.triton_plan import plan_repository
from engine_builder.interchange.trtexec_command import command_of
from engine_builder.profiling.predictions import predictions, read_loss_model
from engine_builder.qdq.exactness import engine_exact_on
from engine_builder.qdq.graph.opsets import engine_opsets
from engine_builder.records.assignment import PrecisionAssignment, fingerprint_of
from engine_builder.records.calibrated import read_corrections, read_ranges
from engine_builder.records.corrections import Correction
from engine_builder.records.given_assignment import differences, quantized_of
from engine_builder.records.inspection import Inspection
from engine_builder.records.trial import Trial
from engine_builder.reporting.baseline_words import fallback_in_words
from engine_builder.reporting.body.data_facts import data_facts
from engine_builder.reporting.body.job_result import (
    AS_GIVEN,
    JobResult,
    PredictedSpeedup,
    ReportedEngine,
    ReportedObjective,
    ReportedOffers,
    ShippedEngine,
    outcome_of,
    reported_objective,
    reported_verdict,
    result_json,
    route_in_words,
    shipped_route,
    taken_outputs,
)
from engine_builder.reporting.body.layer_facts import DependencyMap, dependency_map, measured_pairs, reported_layers
from engine_builder.reporting.body.made_now import made_now
from engine_builder.reporting.body.report_body import ColumnChange, ReportBody, body_json
from engine_builder.reporting.body.reported_stripping import NO_TRITON_OF_STRIPPED, reported_stripping, whole_in_words
from engine_builder.reporting.body.score_of_loss import score_of_loss
from engine_builder.reporting.body.search_facts import FinalTiming, ProbeSummary
from engine_builder.reporting.dynamic_words import neighbours_warning
from engine_builder.reporting.float_only import float_only, float_only_note, low_precision_notes
from engine_builder.reporting.objective_reason import objective_reason
from engine_builder.reporting.offers.reported import reported_offers
from engine_builder.reporting.offers.words import nearest_in_words
from engine_builder.reporting.page import render
from engine_builder.reporting.reason import NONE_RAN, reason, why_none_ran, why_not_analysed, why_not_corrected
from engine_builder.reporting.timing_words import busy_warning, speedup_spread
from engine_builder.search.loss_model import LossModel
from engine_builder.search.measured_front import pareto_front
from engine_builder.search.search_space import BASELINE
from engine_builder.stage_io.engines import VerdictResult
from engine_builder.stage_io.outcome import JobOutcome, ReportRequest
from engine_builder.workspace.workspace import FileRef, StageContext, Workspace


def report(request: ReportRequest, context: StageContext) -> JobOutcome:
    """Write the artifacts and return the outcome of the job.

    Args:
        request: Everything the pipeline gathered.
        context: Where the artifacts go.
    """
    given = _read(request, context.workspace)
    workspace, judgement = context.workspace, given.asked.verdict
    chosen = next((trial for trial in given.asked.finalists if trial.fingerprint == judgement.chosen), None)
    precisions = given.inspection.baseline_precisions | (chosen.precisions if chosen else {})
    assignment = PrecisionAssignment(tuple(precisions.items()))
    engine = judgement.engine or given.asked.job.baseline
    repository, why_none = _triton(engine, given, context)
    cache = kept_timing_cache(workspace)
    builder, route = given.asked.job.config.builder, "" if chosen is None else chosen.build_route
    stripped, calls = given.asked.stripped, given.inspection.calls
    is_stripped, has_cache = stripped is not None and stripped.ships, cache is not None
    command = command_of(builder, calls, judgement, has_timing_cache=has_cache, build_route=route, is_stripped=is_stripped)
    body = replace(_body(given, chosen, assignment, why_none, context), trtexec=command)
    artifacts = {
        "report.json": workspace.write_json("report.json", body_json(body)),
        "report.html": workspace.write_bytes("report.html", render(body).encode()),
        "assignment.json": workspace.write_json("assignment.json", assignment.as_json()),
    }
    if judgement.explicit is not None:
        artifacts["model.explicit.onnx"] = judgement.explicit
    layers = _baseline_layers(given, workspace) if chosen is None else chosen.layers
    artifacts |= plan_files(judgement, stripped, builder, workspace, layers=layers, timing_cache=cache)
    if repository is not None:
        artifacts["triton.zip"] = repository
    for one in given.asked.offers.engines:
        artifacts |= {ref.file: ref for ref in (one.assignment, one.engine) if ref is not None}
    return JobOutcome(result_json(body.result), body.result.engine.name, engine, artifacts)


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """What the pipeline gathered, and the content of the files that it names. Not compared: it holds arrays."""

    asked: ReportRequest
    inspection: Inspection
    ranges: RangeTable
    repairs: tuple[Correction, ...]  # that were tried
    table: SensitivityTable  # without rows where the search needed no losses
    losses: LossModel | None  # None there


def _read(request: ReportRequest, workspace: Workspace) -> _Given:
    calibrated, analysed = request.job.calibrated, request.analysed
    return _Given(
        request,
        workspace.read_value(Inspection, request.job.inspection),
        read_ranges(calibrated, workspace),
        read_corrections(calibrated, workspace).tried,
        SensitivityTable((), 0, 0, 0.0, ()) if analysed is None else workspace.read_value(SensitivityTable, analysed.ranked.table),
        None if analysed is None else read_loss_model(analysed.ranked, workspace),
    )


def _body(
    given: _Given, chosen: Trial | None, assignment: PrecisionAssignment, why_no_repository: Sequence[str], context: StageContext
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
    analysed, search = given.asked.analysed, given.asked.search
    measured = {} if analysed is None else analysed.providers
    capabilities = backend_for(given.asked.job.config.target, given.asked.job.config.gpu, table=targets_of(context)).capabilities
    stay_float = float_only(found.model.layers, given.ranges)
    shown = chosen or next((trial for trial in given.asked.trials if trial.reached is not None and trial.low_layers), None)
    reached = _reached(None if shown is None else shown.reached, workspace)
    law = score_of_loss(given.asked.trials, is_lower_better=found.reference.metric.spec.better is Better.LOWER)
    return ReportBody(
        result=_result(given, chosen, capabilities, workspace),
        config=config_json(given.asked.job.config),
        notes=(
            *found.notes,
            *float_only_note(stay_float),
            *low_precision_notes(found.model.layers, given.asked.job.calibrated, capabilities),
            *_given(given, capabilities),
            *given.asked.notes,
            *why_no_repository,
        ),
        data=data_facts(found),
        layers=reported_layers(found.model.layers, table, assignment, stay_float, law),
        baseline_repair=found.baseline.fallback,
        baseline_reached=_reached(found.baseline.achieved, workspace),
        repairs=(*given.repairs, *_bias_corrections(chosen, given.asked.trials)),
        traces=table.traces,
        dependencies=() if analysed is None else measured_pairs(analysed.tests),
        dependency_map=DependencyMap((), ()) if given.losses is None else dependency_map(table, given.losses.interaction, assignment),
        reached=reached,
        reached_in=None if shown is None or reached is None else shown.index,
        orders={} if analysed is None else analysed.ranked.rankings,
        chosen=None if chosen is None else chosen.fingerprint,
        trials=given.asked.trials,
        front=tuple(trial.fingerprint for trial in pareto_front(given.asked.trials)),
        search=search,
        forecasts=given.asked.forecasts,
        predictions=predictions(given.asked.trials, given.losses, given.asked.forecasts),
        finalists=given.asked.verdict.judged,
        final_timing=FinalTiming(given.asked.verdict.latency_ms, given.asked.verdict.spread),
        probes=ProbeSummary(table.samples, table.hessian_samples, len(table.rows), table.plain_forwards, tuple(measured), measured),
        kernel_times=capabilities.kernel_times,
        folded=found.folded,
        score_of_loss=law,
        columns=_columns(chosen, workspace),
        made=None if given.asked.model is None else made_now(given.asked.model),
        not_corrected=why_not_corrected(search.ended) if given.asked.are_corrections_left else None,
        not_analysed=why_not_analysed(search.ended, given.asked.analysis_failures) if analysed is None else None,
        routes=given.asked.routes,
    )


def _given(given: _Given, target: Capabilities) -> tuple[str, ...]:
    """Return what the engine of the user's own assignment has otherwise."""
    asked, every = given.asked.job.config.assignment, given.inspection.baseline_precisions
    if not asked:
        return ()
    quantized = quantized_of(asked, tuple(every), given.asked.job.calibrated.eligible)
    name = fingerprint_of(every, quantized, target.baseline)
    tried = next((trial for trial in given.asked.trials if trial.fingerprint == name), None)
    return () if tried is None else differences(asked, every | tried.precisions)


def _triton(engine: FileRef, given: _Given, context: StageContext) -> tuple[FileRef | None, tuple[str, ...]]:
    """Return the Triton repository of an engine, or None and a note that says why there is none."""
    found, tensors = given.inspection, given.asked.verdict.tensors
    platform = backend_for(given.asked.job.config.target, given.asked.job.config.gpu, table=targets_of(context)).capabilities.triton
    source, output = context.workspace.path(engine), context.scratch / "triton.zip"
    may_batch = found.model.axes.are_first and not found.model.is_batch_fixed
    if given.asked.stripped is not None and given.asked.stripped.ships:
        return None, (NO_TRITON_OF_STRIPPED,)
    try:
        if tensors is not None:  # of a plan
            repository = plan_repository(source, tensors, output, may_batch=may_batch)
        elif platform is TritonPlatform.ONNXRUNTIME:
            batch = max(found.model.batch, found.calls.timed_batch) if may_batch else 0  # what this job ran the model with
            repository = onnx_repository(source, output, max_batch_size=batch)
        else:
            return None, ("no triton.zip: Triton loads no plans of this target",)
    except BuildError as error:
        return None, (f"no {error.detail}",)
    return context.workspace.copy(repository, "triton.zip"), ()


def _result(given: _Given, chosen: Trial | None, target: Capabilities, workspace: Workspace) -> JobResult:
    """Return the job's ``result`` as the HTTP contract gives it."""
    found, judgement, source = given.inspection, given.asked.verdict, Source(target.latency_source)
    baseline = ReportedEngine(
        latency_ms=judgement.latency_ms[BASELINE],
        accuracy=judgement.baseline_accuracy,
        size_bytes=judgement.baseline_size_bytes,
        precisions=judgement.baseline_precisions,
    )
    kept = baseline if chosen is None else _chosen_engine(found, judgement, chosen, workspace)
    engine = judgement.engine or given.asked.job.baseline
    accuracy, is_predicted = given.asked.job.config.accuracy, source is Source.PREDICTED
    asked = given.asked.job.config.objective
    budget = accuracy.budget if asked is None else None
    offers = reported_offers(given.asked.offers, judgement, budget, target.engine_name, engine, is_predicted=is_predicted)
    objective = None if asked is None else reported_objective(asked, judgement)
    none_ran, stripped = why_none_ran(given.asked.trials), reported_stripping(given.asked.stripped)
    if given.asked.job.config.assignment_only:
        offers = replace(offers, in_words="none, since nothing was searched for")
    if none_ran is not None:
        offers = replace(offers, in_words="none, since no quantized engine could be built or run")
    by_call: tuple[str, ...] = ()
    if chosen is not None:
        orders = judgement.orders.get(chosen.fingerprint)
        by_call = neighbours_warning(chosen.precisions, found.calls.scored_batch, found.reference.metric, orders)
    return JobResult(
        outcome=outcome_of(given.asked.job.config, chosen),
        reason=_reason(given, chosen, offers, objective, is_predicted=is_predicted) + whole_in_words(stripped),
        latency_source=source,
        baseline=replace(baseline, repaired=None if found.baseline.fallback is None else fallback_in_words(found.baseline.fallback)),
        chosen=kept,
        verdict=reported_verdict(judgement.verdict),
        engine=ShippedEngine(
            name=target.engine_name,
            sha256=engine.sha256,
            size_bytes=kept.size_bytes if given.asked.stripped is None else given.asked.stripped.shipped_bytes,
            exact_on=None if chosen is None else engine_exact_on(workspace.path(engine)),
            opsets=engine_opsets(workspace.path(engine)),
        ),
        warnings=(*found.warnings, *by_call, *busy_warning(judgement.waited), *given.asked.analysis_failures),
        environment=judgement.environment,
        offers=offers,
        speedup=1.0 / judgement.ratio if source is Source.MEASURED else None,
        speedup_spread=None if is_predicted else 0.0 if chosen is None else speedup_spread(judgement.spread[chosen.fingerprint]),
        predicted_speedup=_predicted_speedup(judgement, chosen) if source is Source.PREDICTED else None,
        outputs=taken_outputs([one for one in found.reference.judged if one.name not in found.state_outputs]),
        none_ran=none_ran,
        objective=objective,
        folded=folded_in_words(found.folded) or None,
        build_route=shipped_route(judgement.chosen, given.asked.routes),
        stripped=stripped,
    )


def _reason(given: _Given, chosen: Trial | None, offers: ReportedOffers, objective: ReportedObjective | None, *, is_predicted: bool) -> str:
    """Return why this engine was chosen or the baseline kept; then, what the nearest offers are."""
    asked = given.asked
    if asked.job.config.assignment_only:
        return AS_GIVEN
    failure = why_none_ran(asked.trials)
    if objective is not None and failure is not None and not objective.is_reached:
        return f"{NONE_RAN}: {failure}"
    if objective is not None:
        return objective_reason(objective, asked.trials, asked.verdict, offers.engines, is_predicted=is_predicted)
    calibrated, confidence = asked.job.calibrated, asked.job.config.accuracy.confidence
    can_quantize, slower = any(calibrated.eligible.values()), bool(calibrated.slower)
    known = (asked.trials, asked.finalists, asked.verdict, given.table.rows)
    why = reason(*known, can_quantize=can_quantize, confidence=confidence, ended=asked.search.ended, slower=slower)
    had = nearest_in_words(offers.engines, is_predicted=is_predicted) if chosen is None else ""
    return f"{why} {route_in_words(shipped_route(asked.verdict.chosen, asked.routes))}{had}".strip()


def _chosen_engine(inspection: Inspection, judgement: VerdictResult, chosen: Trial, workspace: Workspace) -> ReportedEngine:
    assert chosen.size_bytes is not None  # it was built
    kept = {} if chosen.scores is None else workspace.read_arrays(chosen.scores)
    change, nearest = kept.get("largest_change"), kept.get("nearest_kept")
    counts = Counter(chosen.precisions.get(name, precision).value for name, precision in inspection.baseline_precisions.items())
    return ReportedEngine(
        judgement.latency_ms[chosen.fingerprint],
        judgement.verdict.engine,
        chosen.size_bytes,
        dict(sorted(counts.items())),
        largest_change=None if change is None or not np.isfinite(change) else float(change),
        nearest_kept=None if nearest is None else float(nearest),
    )


def _columns(chosen: Trial | None, workspace: Workspace) -> tuple[ColumnChange, ...]:
    """Return what changed in each value of a sample, where that was told apart."""
    rows = None if chosen is None or chosen.scores is None else workspace.read_arrays(chosen.scores).get("columns")
    if rows is None:
        return ()
    return tuple(ColumnChange(*(float(value) if np.isfinite(value) else None for value in row)) for row in rows)


def _predicted_speedup(judgement: VerdictResult, chosen: Trial | None) -> PredictedSpeedup:
    """Return baseline median / chosen median with its range; that of the baseline itself is certain."""
    ratio, error = judgement.ratio, 0.0 if chosen is None else judgement.least_gain
    return PredictedSpeedup(1.0 / ratio, (1.0 / (ratio * (1.0 + error)), 1.0 / (ratio * (1.0 - error))))


def _reached(ref: FileRef | None, workspace: Workspace) -> tuple[AchievedPrecision, ...] | None:
    return None if ref is None else value_from_json(tuple[AchievedPrecision, ...], workspace.read_json(ref))


def _baseline_layers(given: _Given, workspace: Workspace) -> FileRef | None:
    """Return what the runtime says of the baseline's layers, which lies beside it."""
    beside = str(PurePosixPath(given.asked.job.baseline.file).with_name(LAYERS_NAME))
    return workspace.adopt(beside) if workspace.path(beside).is_file() else None


def _bias_corrections(chosen: Trial | None, trials: Sequence[Trial]) -> tuple[Correction, ...]:
    """Return what correcting biases was worth for the engine that is kept, or for the one with every layer quantized."""
    trial = chosen or next((trial for trial in trials if trial.order == "all_low"), None)
    return () if trial is None or trial.bias is None else (trial.bias,)
