"""The stage ``report``: everything that was measured in ``report.json`` and ``report.html``, and the outcome as the job's result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from calibration.accuracy.metrics import OutputKind
from calibration.codec import json_from_value, value_from_json
from calibration.sensitivity.interactions import PairTest
from calibration.sensitivity.ranking import SensitivityTable
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.backends.registry import backend_for, targets_of
from engine_builder.config.config import config_from_json
from engine_builder.engines.factory import kept_timing_cache
from engine_builder.errors import BuildError
from engine_builder.interchange.triton_onnx import onnx_repository
from engine_builder.interchange.triton_plan import plan_repository
from engine_builder.profiling.predictions import dependency_map, predictions
from engine_builder.qdq.exactness import engine_exact_on
from engine_builder.records.assignment import PrecisionAssignment
from engine_builder.records.corrections import Repair, read_ranges, read_repairs
from engine_builder.records.inspection import Inspection, read_inspection
from engine_builder.records.trial import Trial
from engine_builder.reporting.baseline_words import repair_in_words
from engine_builder.reporting.float_only import float_only, float_only_note
from engine_builder.reporting.page import render
from engine_builder.search.measured_front import pareto_front
from engine_builder.search.search_space import is_uniform
from engine_builder.timing import MIN_GAIN
from engine_builder.workspace.workspace import FileRef, StageContext

IN_THE_WAY = 5  # most sensitive layers named where the budget kept the baseline
HELD_UP = 3.0  # times the median: a 95th percentile beyond it is that of a machine with other work


def report(request: Mapping[str, object], context: StageContext) -> dict[str, object]:
    """Write the artifacts and return ``result``, ``engine`` and ``artifacts`` of the job.

    Args:
        request: Everything the pipeline gathered.
        context: Where the artifacts go.
    """
    found = read_inspection(request, context)
    workspace = context.workspace
    trials = value_from_json(tuple[Trial, ...], request["trials"])
    judged = cast(Mapping[str, object], request["verdict"])
    table = value_from_json(SensitivityTable, workspace.read_json(value_from_json(FileRef, request["table"])))
    shipped = value_from_json(tuple[Trial, ...], request["finalists"])  # built again where the search's engines do not ship
    chosen = next((trial for trial in shipped if trial.fingerprint == judged["chosen"]), None)
    assignment = PrecisionAssignment(tuple((found.baseline_precisions | (dict(chosen.precisions) if chosen else {})).items()))
    result = _result(found, trials, judged, chosen, table, request, context)
    arrays = workspace.read_arrays(value_from_json(FileRef, request["dependency"]))
    interaction = np.asarray(arrays["interaction"], dtype=np.float64)
    forecasts = cast(Sequence[Mapping[str, object]], request["forecasts"])
    engine = judged["engine"] or request["model"]
    repository, why_none = _triton(value_from_json(FileRef, engine), judged["tensors"], found, context)
    shown = chosen or next((trial for trial in trials if trial.reached is not None and trial.low_layers), None)
    stay_float = float_only(found.layers, read_ranges(request, context))
    body = {
        "result": result,
        "config": request["config"],
        "notes": [*found.notes, *float_only_note(stay_float), *cast(Sequence[str], request["notes"]), *why_none],
        "data": _data(found),
        "layers": _layers(found, table, assignment, stay_float),
        "baseline_repair": json_from_value(found.baseline_repair),
        "baseline_reached": None if found.baseline_reached is None else workspace.read_json(found.baseline_reached),
        "repairs": json_from_value((*read_repairs(request, context).tried, *_bias_repairs(chosen, trials))),
        "traces": json_from_value(table.traces),
        "dependencies": _dependencies(value_from_json(tuple[PairTest, ...], request["tests"])),
        "dependency_map": dependency_map(table, interaction, assignment),
        "reached": workspace.read_json(shown.reached) if shown is not None and shown.reached is not None else None,
        "reached_in": None if shown is None or shown.reached is None else shown.index,
        "orders": request["orders"],
        "chosen": chosen.fingerprint if chosen is not None else None,
        "trials": json_from_value(trials),
        "front": [trial.fingerprint for trial in pareto_front(trials)],
        "search": request["search"],
        "forecasts": forecasts,
        "predictions": predictions(trials, table, arrays, forecasts),
        "finalists": judged["judged"],
        "final_timing": {"latency_ms": judged["latency_ms"], "relative": judged["spread"]},
        "probes": {
            "samples": table.samples,
            "hessian_samples": table.hessian_samples,
            "decisions": len(table.rows),
            "forwards": table.plain_forwards,
            "providers": request["providers"],
        },
    }
    artifacts = {
        "report.json": workspace.write_json("report.json", body),
        "report.html": workspace.write_bytes("report.html", render(body).encode()),
        "assignment.json": workspace.write_json("assignment.json", assignment.as_json()),
    }
    if judged["explicit"] is not None:
        artifacts["model.explicit.onnx"] = value_from_json(FileRef, judged["explicit"])
    cache = kept_timing_cache(workspace)
    if cache is not None:
        artifacts["timing.cache"] = cache
    if repository is not None:
        artifacts["triton.zip"] = repository
    return {"result": result, "engine": engine, "artifacts": {name: json_from_value(ref) for name, ref in artifacts.items()}}


def _triton(engine: FileRef, tensors: object, found: Inspection, context: StageContext) -> tuple[FileRef | None, tuple[str, ...]]:
    """Return the Triton repository of an engine, or None and a note that says why there is none."""
    source, output = context.workspace.path(engine), context.scratch / "triton.zip"
    may_batch = found.axes.are_first and not found.is_batch_fixed
    try:
        if engine.file.endswith(".onnx"):
            batch = max(found.batch, found.timing_batch) if may_batch else 0  # what this job ran the model with
            repository = onnx_repository(source, output, max_batch_size=batch)
        elif tensors is not None:
            repository = plan_repository(source, value_from_json(EngineTensors, tensors), output, may_batch=may_batch)
        else:
            return None, ("no triton.zip: Triton loads no plans of this target",)
    except BuildError as error:
        return None, (f"no {error.detail}",)
    return context.workspace.copy(repository, "triton.zip"), ()


def _result(
    found: Inspection,
    trials: Sequence[Trial],
    judged: Mapping[str, object],
    chosen: Trial | None,
    table: SensitivityTable,
    request: Mapping[str, object],
    context: StageContext,
) -> dict[str, object]:
    """Return the job's ``result`` as the HTTP contract gives it."""
    verdict = cast(Mapping[str, object], judged["verdict"])
    latency = cast(Mapping[str, Mapping[str, object]], judged["latency_ms"])
    config = config_from_json(request["config"])
    target = backend_for(config.target, config.gpu, table=targets_of(context)).capabilities
    baseline = {
        "latency_ms": latency["baseline"],
        "accuracy": judged["baseline_accuracy"],
        "size_bytes": judged["baseline_size_bytes"],
        "precisions": judged["baseline_precisions"],
    }
    repaired = {} if found.baseline_repair is None else {"repaired": repair_in_words(found.baseline_repair)}
    picked = baseline
    if chosen is not None:
        picked = {
            "latency_ms": latency[chosen.fingerprint],
            "accuracy": verdict["engine"],
            "size_bytes": chosen.size_bytes,
            "precisions": _counts(found, chosen),
        }
    engine = value_from_json(FileRef, judged["engine"] or request["model"])
    ended = str(cast(Mapping[str, object], request["search"])["ended"])
    return {
        "outcome": "improved" if chosen is not None else "baseline_kept",
        "reason": _reason(
            trials,
            len(cast(Sequence[object], request["finalists"])),
            judged,
            chosen,
            table,
            confidence=config.accuracy.confidence,
            ended=ended,
        ),
        "latency_source": target.latency_source,
        "baseline": {**baseline, **repaired},
        "chosen": picked,
        **_gain(cast(float, judged["ratio"]), chosen, judged, target.latency_source),
        "verdict": {key: verdict[key] for key in ("answer", "metric", "drop", "interval", "confidence", "n", "selection")}
        | {key: verdict[key] for key in ("flips", "budget", "probability_over_budget", "samples_needed", "method")},
        "engine": {"name": target.engine_name, "sha256": engine.sha256, "size_bytes": picked["size_bytes"]}
        | {"exact_on": None if chosen is None else engine_exact_on(context.workspace.path(engine))},
        "warnings": list(found.warnings),
        "environment": judged["environment"],
    }


def _gain(ratio: float, chosen: Trial | None, judged: Mapping[str, object], source: str) -> dict[str, object]:
    """Return ``speedup``, baseline median / chosen median; of predicted latencies ``predicted_speedup``, with its range."""
    if source == "measured":
        return {"speedup": 1.0 / ratio}
    error = cast(float, judged["least_gain"]) if chosen is not None else 0.0
    return {"predicted_speedup": {"value": 1.0 / ratio, "range": [1.0 / (ratio * (1.0 + error)), 1.0 / (ratio * (1.0 - error))]}}


def _reason(
    trials: Sequence[Trial],
    finalists: int,
    judged: Mapping[str, object],
    chosen: Trial | None,
    table: SensitivityTable,
    *,
    confidence: float | None,
    ended: str,
) -> str:
    """Return in one sentence why this engine was chosen or the baseline kept."""
    tried = [trial for trial in trials if trial.low_layers and trial.failure is None]
    if chosen is not None:
        whole = " Every layer that can be low is low." if is_uniform(chosen.order) else ""
        if len(tried) == 1:
            return f"The only low-precision engine tried: it keeps the accuracy budget.{whole}"
        timed = cast(Mapping[str, Mapping[str, float]], judged["spread"])
        best = min(timed, key=lambda name: timed[name]["ratio"])
        of = f"of {len(tried)} low-precision engines tried.{whole}"
        if best == chosen.fingerprint:
            return f"The fastest engine that keeps the accuracy budget, {of}"
        return f"The safest engine among those that keep the accuracy budget and that the timing cannot tell from the fastest, {of}"
    if not tried:
        if not table.rows:
            return "No low-precision engine was tried: no layer can take a lower precision."
        failure = next((trial.failure for trial in trials if trial.failure), None)
        return f"No low-precision engine could be built: {failure}" if failure else f"No low-precision engine was tried: {ended}."
    worst = sorted(table.rows, key=lambda row: -row.loss)[:IN_THE_WAY]
    named = ", ".join(f"{row.layer} ({row.precision})" for row in worst)
    if not any(trial.met for trial in tried):
        missed = f"None of {len(tried)} low-precision engines kept" if len(tried) > 1 else "The only low-precision engine tried missed"
        return f"{missed} the accuracy budget. The most sensitive layers stood in the way: {named}."
    if finalists and not judged["judged"]:
        return "Engines kept the accuracy budget and were faster in the search, but failed as they were built and timed for the verdict."
    fastest = min((trial.latency.ratio for trial in tried if trial.met and trial.latency is not None), default=None)
    if fastest is not None and not judged["judged"]:
        took = "is predicted to take" if cast(float, judged["least_gain"]) > MIN_GAIN else "took"
        best = f"the best {took} {fastest:.2f} of its time.{_busy(trials)}"
        return f"Engines kept the accuracy budget, but none was faster than the baseline: {best}"
    refused = cast(Sequence[Mapping[str, Mapping[str, object]]], judged["judged"])
    accepted = ("met", "met_on_sample") if confidence is None else ("met",)
    if refused and refused[0]["verdict"]["answer"] not in accepted:
        asked = "" if confidence is None else f" at the confidence asked for, {confidence:.0%}"
        return f"Engines kept the accuracy budget in the search, but none passed the verdict{asked}."
    spread = "by more than the spread of the timing"
    if fastest is not None and cast(float, judged["least_gain"]) > MIN_GAIN:
        spread = f"by more than the error of a prediction, {judged['least_gain']:.0%}: the best is predicted at {fastest:.2f} of its time"
    return f"Engines kept the accuracy budget, but none was faster than the baseline {spread}.{_busy(trials)}"


def _busy(trials: Sequence[Trial]) -> str:
    """Return what to say where the baseline was held up often while it was timed: a small gain is then easily missed."""
    timed = next((trial.latency for trial in trials if trial.latency is not None and trial.latency.runs), None)
    if timed is None or timed.p95_ms < HELD_UP * timed.median_ms:
        return ""
    times = timed.p95_ms / timed.median_ms
    return (
        f" The machine was busy meanwhile: the slowest 5% of the baseline's calls took {times:.0f} times the median or more. "
        "An idle machine may find a faster engine."
    )


def _bias_repairs(chosen: Trial | None, trials: Sequence[Trial]) -> tuple[Repair, ...]:
    """Return what correcting biases was worth for the engine that is kept, or for the one with every layer low."""
    trial = chosen or next((trial for trial in trials if trial.order == "all_low"), None)
    return () if trial is None or trial.bias is None else (trial.bias,)


def _counts(found: Inspection, chosen: Trial) -> dict[str, int]:
    counts = Counter(chosen.precisions.get(name, precision).value for name, precision in found.baseline_precisions.items())
    return dict(sorted(counts.items()))


def _data(found: Inspection) -> dict[str, object]:
    return {
        "metric": found.metric.value,
        "outputs": [kind.value for kind in found.kinds],
        "output_weights": _weights(found),
        "metric_model": found.metric_model.sha256 if found.metric_model is not None else None,
        "calibration_samples": found.calibration_samples,
        "validation_samples": found.validation_samples,
        "validation_held_out_of_calibration": found.held_out,
        "calibration_is_validation": found.shared_data,
        "float_type": found.float_type.value,
        "timing_batch": found.timing_batch,
    }


def _weights(found: Inspection) -> dict[str, float]:
    """Return the share of each compared output in the loss, by name: 0..1, 1 in all."""
    given = dict(zip(found.output_names, found.weights, strict=True))
    kept = {name: given[name] for name, kind in zip(found.output_names, found.kinds, strict=False) if kind is not OutputKind.IGNORE}
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}


def _layers(
    found: Inspection, table: SensitivityTable, assignment: PrecisionAssignment, stay_float: Mapping[str, str]
) -> list[dict[str, object]]:
    rows = {row.layer: row for row in table.rows}
    listed: list[dict[str, object]] = []
    for layer in found.layers:
        row = rows.get(layer.name)
        listed.append(
            {
                "name": layer.name,
                "op_type": layer.op_type,
                "kind": layer.kind.value,
                "precision": assignment[layer.name].value,
                "macs": layer.macs,
                "weights": layer.weight_count,
                "loss": row.loss if row else None,
                "loss_error": row.loss_error if row else None,
                "hessian": row.hessian if row else None,
                "hessian_error": row.hessian_error if row else None,
                "stays_float": stay_float.get(layer.name),
            }
        )
    return listed


def _dependencies(tests: Sequence[PairTest]) -> list[dict[str, object]]:
    """Return the exact pair tests, the strongest first."""
    listed: list[dict[str, object]] = []
    for test in sorted(tests, key=lambda test: -abs(test.dependency)):
        pair = {"first": test.first.layer, "second": test.second.layer}
        listed.append({**pair, "dependency": test.dependency, "error": test.error, "samples": test.samples})
    return listed
