"""A job's result in a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from calibration.accuracy.measures.tasks.retrieval import nearest_in_words
from calibration.accuracy.metrics import Metric, MetricSpec, metric_named
from calibration.accuracy.resolution import inside_in_words

_SMALL = 1e-4
_VERDICTS = {
    "met": "met",
    "met_on_sample": "likely met (too few samples to be certain)",
    "not_met": "not met",
}


def summary_lines(result: Mapping[str, object]) -> tuple[str, ...]:
    """Return what was found: latency before and after, accuracy with its interval, layers per precision, warnings.

    Of a job for several types of GPU: what was found for each, and where its engine is.
    """
    if isinstance(engines := result.get("engines"), Mapping):
        return (f"An engine for each of {len(engines)} types of GPU:", *(_of_type(str(gpu), _part(engines, gpu)) for gpu in engines))
    baseline, chosen = _part(result, "baseline"), _part(result, "chosen")
    kept = result["outcome"] == "baseline_kept"
    lines = [
        _headline(result, kept=kept),
        f"  latency   {_latency(baseline)} -> {_latency(chosen)}" + _speedup(result),
        f"  size      {_megabytes(baseline)} -> {_megabytes(chosen)}",
        f"  layers    {_counts(_part(chosen, 'precisions'))}",
    ]
    if kept and result.get("reason") and not result.get("none_ran"):
        lines.insert(1, f"  reason    {result['reason']}")
    if baseline.get("repaired"):
        lines.append(f"  baseline  fallback: {baseline['repaired']}")
    exact_on = _part(result, "engine").get("exact_on")
    if exact_on:
        lines.append(f"  exact on  {exact_on}")
    others = sorted(_part(_part(result, "engine"), "opsets").keys() - {"ai.onnx"}) if not kept else []
    if others:
        lines.append(f"  needs     the operators of {', '.join(others)}, as onnxruntime has them")
    verdict = result.get("verdict")
    if isinstance(verdict, Mapping):
        lines.append(f"  accuracy  {_verdict(verdict)}")
    change = chosen.get("largest_change")
    if isinstance(change, int | float):
        lines.append(f"  change    of a score at most {change:.4g} on these samples, on either side of the threshold")
    nearest = chosen.get("nearest_kept")
    if isinstance(nearest, int | float):
        lines.append(f"  nearest   {nearest_in_words(nearest)}")
    stripped = _part(result, "stripped")
    if stripped:
        lines.append(f"  plan      {stripped['in_words']}")
    lines.extend(_offers(_part(result, "offers")))
    warnings = result.get("warnings")
    lines.extend(f"  warning   {text}" for text in (warnings if isinstance(warnings, list | tuple) else ()))
    return tuple(lines)


def _of_type(gpu: str, branch: Mapping[str, object]) -> str:
    """Return what a job for several types of GPU found for one of them."""
    if branch.get("state") != "succeeded":
        error = _part(branch, "error").get("detail")
        return f"  {gpu}: {branch.get('state')}" + ("" if error is None else f": {error}")
    found = str(branch.get("outcome")).replace("_", " ") + _speedup(branch)
    return f"  {gpu}: {found}; {_part(branch, 'engine').get('name')}, job {branch.get('job')}"


def _inside(result: Mapping[str, object]) -> str:
    over = _part(result, "verdict").get("probability_over_budget")
    return inside_in_words(over) if isinstance(over, int | float) else "inside the budget"


def _headline(result: Mapping[str, object], *, kept: bool) -> str:
    objective = _part(result, "objective")
    if result.get("none_ran") and not objective.get("is_reached"):
        return f"The baseline is kept: no quantized engine could be built or run: {result['none_ran']}"
    if result["outcome"] == "built":
        return f"The engine of the assignment is built: {_inside(result)}."
    if not objective:
        return "The baseline is kept: nothing faster stays inside the budget." if kept else f"A faster engine is {_inside(result)}."
    if not kept:
        return f"The most accurate engine that {objective.get('in_words')}."
    if objective.get("is_reached"):
        return f"The baseline is kept: it {objective.get('in_words')} itself."
    return f"The baseline is kept: no engine {objective.get('in_words')}."


def _offers(offers: Mapping[str, object]) -> Iterator[str]:
    """Yield what other budgets would give, and where the engines for it are."""
    if offers.get("in_words"):
        yield f"  offers    {offers['in_words']}"
    engines = offers.get("engines")
    for engine in engines if isinstance(engines, list | tuple) else ():
        speedup, over = engine.get("speedup"), _part(engine, "verdict").get("probability_over_budget")
        chance = f" (probability of being over it {over:.1%})" if isinstance(over, int | float) else ""
        where = _part(engine, "file").get("name") or engine.get("no_file") or engine.get("assignment")
        if isinstance(speedup, int | float):
            yield f"            {speedup:.2f}x inside {engine.get('in_words')}{chance}: {where}"


def _part(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    part = value.get(key)
    return part if isinstance(part, Mapping) else {}


def _latency(side: Mapping[str, object]) -> str:
    latency = _part(side, "latency_ms")
    median, p95 = latency.get("median"), latency.get("p95")
    if not isinstance(median, int | float):
        return "not measured"
    return f"{median:.3f} ms" + (f" (p95 {p95:.3f})" if isinstance(p95, int | float) else "")


def _speedup(result: Mapping[str, object]) -> str:
    speedup, spread, predicted = (result.get(key) for key in ("speedup", "speedup_spread", "predicted_speedup"))
    if isinstance(predicted, Mapping):
        low, high = predicted["range"]
        return f", predicted, not measured: {predicted['value']:.2f} ({low:.2f} to {high:.2f}) times as fast"
    if not isinstance(speedup, int | float):
        return ""
    return f", {speedup:.2f}" + (f" ± {max(spread, 0.001):.1g}" if isinstance(spread, int | float) and spread else "") + " times as fast"


def _megabytes(side: Mapping[str, object]) -> str:
    size = side.get("size_bytes")
    return f"{size / 1e6:.2f} MB" if isinstance(size, int | float) else "unknown"


def _counts(precisions: Mapping[str, object]) -> str:
    return ", ".join(f"{count} {precision}" for precision, count in precisions.items()) or "none"


def _verdict(verdict: Mapping[str, object]) -> str:
    answer, drop, interval = str(verdict.get("answer")), verdict.get("drop"), verdict.get("interval")
    if verdict.get("method") == "same_engine":
        return f"budget {_VERDICTS.get(answer, answer)}: the engine is the model that was given"
    parts = [f"budget {_VERDICTS.get(answer, answer)}: {verdict.get('metric')}"]
    spec = (metric_named(verdict.get("metric")) or Metric.CUSTOM).spec  # of a newer server's metric a drop is told
    if isinstance(drop, int | float):
        parts.append(_with_unit(spec, spec.score_after(drop)) if spec.unit else f"{spec.worsening} {_signed(drop)}")
    if isinstance(interval, list | tuple) and all(isinstance(bound, int | float) for bound in interval):
        confidence = verdict.get("confidence")
        at = f" (each end at {confidence:.0%})" if isinstance(confidence, int | float) else ""
        ends = [_signed(bound) for bound in interval]
        if spec.unit:
            ends = [_with_unit(spec, score) for score in sorted(map(spec.score_after, interval))]
        parts.append(f"interval [{', '.join(ends)}]{at}")
    where = "held-out samples" if verdict.get("selection") == "held_out" else "samples (the search used them too)"
    parts.append(f"on {verdict.get('n')} {where}")
    return ", ".join(parts)


def _with_unit(spec: MetricSpec, score: float) -> str:
    """Return the score itself: of decibels against the float model itself a drop says nothing."""
    return f"{score:.2f} {spec.unit}"


def _signed(value: float) -> str:
    """Return a difference of scores; those of errors may be far below any share of samples."""
    return f"{value:+.5f}" if value == 0 or abs(value) >= _SMALL else f"{value:+.2e}"
