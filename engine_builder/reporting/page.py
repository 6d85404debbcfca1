"""``report.html``: the report as one self-contained page, plots first and every number below; no script, nothing loaded from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from html import escape

from calibration.accuracy.measures.tasks.retrieval import nearest_in_words
from engine_builder.backends.base import Source
from engine_builder.records.corrections import OF_NETWORKS, Correction
from engine_builder.records.float_plan import BaselineFallback
from engine_builder.reporting.about import about_in_words
from engine_builder.reporting.body.job_result import JobResult, Outcome, ReportedEngine
from engine_builder.reporting.body.report_body import FUNCTION, ReportBody
from engine_builder.reporting.body.search_facts import trials_in_words
from engine_builder.reporting.decision.compared_engines import as_timed_last
from engine_builder.reporting.decision.headline import speedup_in_words
from engine_builder.reporting.decision.routes_section import routes_section
from engine_builder.reporting.decision.section import finalists_section, lead, next_section, why_section
from engine_builder.reporting.decision.stripped_section import stripped_section
from engine_builder.reporting.figures.drawing import themed
from engine_builder.reporting.figures.engine_plots import front_plot, path_plot, prediction_plots
from engine_builder.reporting.figures.layer_plots import (
    CLIPPED,
    ScoreScale,
    bars_left_out,
    dependency_plot,
    kernel_plot,
    kernel_totals,
    sensitivity_plot,
)
from engine_builder.reporting.offers.section import offers_section
from engine_builder.reporting.style import opening
from engine_builder.reporting.tables import (
    achieved_table,
    attempts_table,
    blocks_table,
    columns_table,
    corrections_table,
    counts,
    dependencies_table,
    engines_table,
    layers_table,
    outputs_table,
    pairs_table,
    score,
    trials_table,
)
from engine_builder.reporting.verdict_words import ANSWERS, amount, decibels, verdict_in_words, worsening

_COLUMNS_NOTE = (
    "Each value of a sample by its place, from 0, the one whose error grew most first. Errors are root mean squares, in spreads that the "
    "wanted value has over the samples; the largest change of a sample is in the unit of the value."
)
_NO_BUDGET = "No accuracy budget was asked for. This one is the tightest that the engine is more likely inside than not."
APART = 0.01  # relative: medians whose ratio differs by more from the speedup are explained


def render(body: ReportBody) -> str:
    """Return the page. A part that has nothing to show is left out of it, with its heading."""
    result = body.result
    answer = result.verdict.answer
    parts = [
        f"{opening('Optimization report')}<h1>Optimization report</h1><p class=about>{escape(about_in_words(body))}</p>",
        lead(body),
        *(f"<p class=warning><b>Warning:</b> {escape(text)}.</p>" for text in result.warnings),
        _tiles(body),
        f"<h2>Verdict</h2><p><span class='badge {answer}'>{escape(ANSWERS[answer])}</span> {escape(verdict_in_words(result.verdict))}</p>",
        "" if result.objective is None else f"<p class=note>{_NO_BUDGET}</p>",
        "" if result.chosen.nearest_kept is None else f"<p class=note>{escape(nearest_in_words(result.chosen.nearest_kept))}.</p>",
        finalists_section(body),
        why_section(body),
        next_section(body),
        offers_section(body),
        _outputs(body),
        _section("What changed in each column", _COLUMNS_NOTE, columns_table(body.columns)),
        _engines(body),
        routes_section(body),
        stripped_section(result),
        _columns(_sensitivity(body), _kernel_times(body)),
        _dependencies(body),
        "" if body.baseline_repair is None else _baseline_fallback(body.baseline_repair),
        _corrections(body),
        _predictions(body),
        _notes(body.notes),
        _numbers(body),
        _repeat(body),
    ]
    return "\n".join([*(part for part in parts if part), "</html>\n"])


def _tiles(body: ReportBody) -> str:
    """Return the headline: what changed, with the spread of every time."""
    result = body.result
    before, after, verdict = result.baseline, result.chosen, result.verdict
    improved = result.outcome is not Outcome.BASELINE_KEPT
    allowed = f"allowed {worsening(verdict.metric)} {amount(verdict.budget)}"
    if verdict.metric.spec.unit:
        allowed = f"at least {decibels(verdict.budget)} dB"
    if after.largest_change is not None:
        allowed += f"; largest change of a score {after.largest_change:.3g}"
    speed, span = _speed(result)
    timed = ", both engines in turns" if improved and result.predicted_speedup is None else ""
    tiles = [
        (speed, f"{'speed-up: ' if improved else ''}latency {result.latency_source}{timed}"),
        (_change(_milliseconds(before), _milliseconds(after), improved), span),
        (
            _change(score(before.accuracy, verdict.metric), score(after.accuracy, verdict.metric), improved),
            f"{verdict.metric} on {verdict.n:,} samples; {allowed}",
        ),
        (_change(_megabytes(before), _megabytes(after), improved), f"size; layers: {counts(after.precisions)}"),
    ]
    cells = "".join(f"<div class=tile><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in tiles)
    return f"<div class=tiles>{cells}</div>"


def _speed(result: JobResult) -> tuple[str, str]:
    """Return the speedup, and what the two latencies beside it are."""
    improved = result.outcome is not Outcome.BASELINE_KEPT
    predicted = result.predicted_speedup
    if predicted is not None:
        low, high = predicted.range
        between = f"; speed-up between {low:.2f} and {high:.2f}" if improved else ""
        speed = speedup_in_words(result) if improved else "baseline kept"
        return speed, f"predicted latency of one call, not measured{between}"
    speed = speedup_in_words(result) if improved else "baseline kept"
    apart = ""
    if (
        result.speedup is not None
        and abs(result.baseline.latency_ms.median / result.chosen.latency_ms.median / result.speedup - 1.0) > APART
    ):
        apart = ", by the wall clock; the speed-up is of processor time"
    return speed, f"median latency of one call ± median absolute deviation of calls{apart}"


def _engines(body: ReportBody) -> str:
    trials = as_timed_last(body)
    plots = [front_plot(trials, body.front, body.chosen, body.result.verdict.metric), path_plot(trials, body.chosen)]
    shown = _side_by_side(plots)
    ended = f" The search ended after {trials_in_words(body.search)}: {body.search.ended}."
    note = "Every point is an engine that was built, scored and timed in turns with the baseline; filled ones are on the front."
    if body.result.latency_source is Source.PREDICTED:
        note = (
            "Every point is an engine that was built. Its latency is predicted from the kernels that the build lists, not measured; its "
            "accuracy is that of the same explicit model in ONNX Runtime. Filled points are on the front."
        )
    return f"<h2>Engines</h2><p class=note>{note}{escape(ended)}</p>{shown}" if shown else ""


def _sensitivity(body: ReportBody) -> str:
    if body.not_analysed is not None:
        key = " <code>analysis: full</code> in the configuration measures them always."
        return f"<h2>Sensitivity</h2><p class=note>{escape(body.not_analysed)}{key}</p>"
    probes, left_out = body.probes, bars_left_out(body.layers)
    each = probes.forwards / probes.samples
    work = f"{probes.decisions} layer precisions took the work of {each:.1f} whole forward passes of each sample"
    rest = f" Less sensitive layers that are in the table below only: {left_out}." if left_out else ""
    law, verdict = body.score_of_loss, body.result.verdict
    scale = None if law is None else ScoreScale(law, verdict.metric, verdict.budget)
    if law is not None:
        rest += (
            f" What a loss costs in {verdict.metric} is an estimate: a power law through the {law.trials} engines whose loss and "
            f"{verdict.metric.spec.worsening} were measured."
        )
    note = (
        f"Loss of the outputs against the float model's with one layer quantized, ± standard error, over {probes.samples} samples "
        f"(Hessian: {probes.hessian_samples}); {work}.{rest}"
    )
    return _section("Sensitivity", note, sensitivity_plot(body.layers, scale))


def _kernel_times(body: ReportBody) -> str:
    if not body.forecasts:
        return ""
    kernels, baseline = body.forecasts[0].kernels_ms, next(iter(body.result.baseline.precisions), "")
    before, after = kernel_totals(kernels, body.layers, baseline)
    found = "Predicted for the kernels of" if body.kernel_times is Source.PREDICTED else "Profiled in"
    note = (
        f"{found} the baseline engine and in that with every layer quantized. All of these layers together: {before:.3g} ms before, "
        f"{after:.3g} ms as the chosen engine mixes them, without the conversions between layers of different precision. "
        "A layer that the runtime fused into another has no time of its own."
    )
    return _section("Kernel time", note, kernel_plot(kernels, body.layers, baseline))


def _dependencies(body: ReportBody) -> str:
    left_out = body.dependency_map.left_out
    note = f"How much more (or less) two layers cost together than each alone. The colours end at the {CLIPPED}th percentile."
    text = _section("Dependencies", note, dependency_plot(body.dependency_map, body.dependencies))
    if text and left_out:
        names = escape(", ".join(left_out))
        text += f"<details><summary>{len(left_out)} layers with weaker dependencies are not in the map</summary><p>{names}</p></details>"
    return text


def _baseline_fallback(found: BaselineFallback) -> str:
    first = found.attempts[0]
    own, why = first.name, "is refused by the builder" if first.score is None else "misses the accuracy budget by itself"
    end = "The fastest that meets it is kept" if found.fits else "None that was tried meets it"
    note = (
        f"The baseline in {own} {why}. It gets a float fallback before anything is quantized, so that this is not "
        f"credited to low precisions. {end}: {found.kept}. A block is a layer with the nodes behind it; its loss is that of the block "
        f"alone in {own}, all others in float32, ± standard error."
    )
    tables = f"{attempts_table(found.attempts, found.kept)}</div><div class=scroll>{blocks_table(found.blocks)}"
    return _section("The baseline needed a float fallback", note, tables)


def _corrections(body: ReportBody) -> str:
    tried, left = body.repairs, ""
    if body.not_corrected is not None:
        left = f"{escape(body.not_corrected)} <code>analysis: full</code> in the configuration measures them always."
    elif any(trial.made_with is not None for trial in body.trials if trial.fingerprint == body.chosen):
        left = "The engine that is kept was built before the others were measured: of these it has the correction of biases alone."
    said = f"<p class=note>{left}</p>" if left else ""
    if not tried:
        return f"<h2>Corrections</h2>{said}" if said else ""
    note = f"Loss on calibration samples that the correction was not fitted to, ± standard error of the difference. {_gains(tried)}"
    if any(correction.what in OF_NETWORKS for correction in tried):
        note += " Of ranges of a whole network: the geometric mean of what decisions lose, on samples that the ranges were fitted to too."
    return _section("Corrections", note, corrections_table(tried)) + said


def _gains(tried: Sequence[Correction]) -> str:
    """Return what each kind of correction gained, a sentence each."""
    lines = []
    for what in dict.fromkeys(correction.what for correction in tried):
        same = [correction for correction in tried if correction.what is what]
        kept = [correction for correction in same if correction.kept]
        before, after = sum(correction.loss_before for correction in kept), sum(correction.loss_after for correction in kept)
        gained = f", which took the loss from {before:.3g} to {after:.3g}" if kept else ""
        lines.append(f"{what[:1].upper() + what[1:]}: {len(kept)} of {len(same)} kept{gained}.")
    return " ".join(lines)


def _predictions(body: ReportBody) -> str:
    note = (
        "What the models said against what was measured, by trial. Latency as it was predicted when the trial was proposed (engines "
        "that no prediction proposed are left out); loss by the sensitivities and dependencies to second order."
    )
    return _section("Predicted and measured", note, _side_by_side(prediction_plots(as_timed_last(body), body.predictions)))


def _outputs(body: ReportBody) -> str:
    """Return what each output was taken for, why, and the key that changes it."""
    if not body.result.outputs:
        return ""
    key = "<p class=note>Where that is wrong, say it in the configuration: <code>outputs: {NAME: KIND}</code>.</p>"
    return f"<h2>What is judged</h2><div class=scroll>{outputs_table(body.result)}</div>{key}"


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>What was done to the model and the data</h2><ul>{items}</ul>" if items else ""


def _numbers(body: ReportBody) -> str:
    kept = body.result.outcome is Outcome.BASELINE_KEPT and body.reached_in is not None
    of_which = f" in trial {body.reached_in}, which is not what is kept" if kept else ""
    tables = [
        ("Engines", engines_table(body.result)),
        ("Trials", trials_table(as_timed_last(body), body.front, body.result.verdict.metric)),
        ("Layers", layers_table(body.layers, body.result.verdict.metric)),
        (f"Asked for and got{of_which}", achieved_table(body.reached or ())),
        ("Asked for and got in the baseline with its float fallback", achieved_table(body.baseline_reached or ())),
        ("The strongest dependencies that were tested exactly", dependencies_table(body.dependencies)),
    ]
    text = "".join(f"<details><summary>{name}</summary><div class=scroll>{table}</div></details>" for name, table in tables if table)
    return f"<h2>The numbers</h2>{text}"


def _repeat(body: ReportBody) -> str:
    data, engine = body.data, body.result.engine
    given = not data.validation_held_out_of_calibration
    samples = f"{'calibration' if data.calibration_is_validation else 'validation'}.npz"
    validation = f" --validation {samples}" if given else ""
    metric = " --metric-model metric.onnx" if data.metric_model else ""
    command = (
        f"onnx-trt-optimizer optimize model.onnx --calibration calibration.npz{validation}{metric} --config config.json --output report/"
    )
    if data.metric_model == FUNCTION:
        files = "'model.onnx', 'calibration.npz'" + (f", '{samples}'" if given else "")
        command = f"onnx_trt_optimizer.optimize({files}, metric=FUNCTION, config=CONFIG, output='report/')"
    facts = {**{name: _fact(value) for name, value in body.result.environment.items()}, "engine SHA-256": engine.sha256}
    if body.made is not None:
        facts |= {"model": body.made.model, "model SHA-256": body.made.model_sha256, "made at": body.made.at}
    if engine.exact_on:
        facts["engine is exact on"] = engine.exact_on
    if body.result.build_route is not None:
        facts["build route of the engine"] = body.result.build_route.route
    if engine.opsets:
        facts["opsets of the engine"] = ", ".join(f"{domain} {version}" for domain, version in engine.opsets.items())
    if body.probes.providers:
        facts["probes ran on"] = body.probes.ran_on
    known = {field.name.replace("_", " "): getattr(data, field.name) for field in fields(data)}
    facts |= {name: _fact(value) for name, value in known.items() if value is not None}
    config = json.dumps(body.config, sort_keys=True, ensure_ascii=False, indent=1)
    text = f"<pre>{escape(command)}</pre><p class=note>with this <code>config.json</code>:</p><pre>{escape(config)}</pre>"
    if body.trtexec is not None:
        text += f"<p class=note>The engine alone, beside <code>model.explicit.onnx</code>:</p><pre>{escape(body.trtexec)}</pre>"
    return f"<h2>Environment and how to repeat it</h2><div class=scroll>{pairs_table(facts)}</div>{text}"


def _fact(value: object) -> object:
    """Return a value for a reader: shares by name and lists as a line of text, yes or no, anything else as it is."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {f'({_fact(one)})' if isinstance(one, Mapping) else _short(one)}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else _fact(value)


def _section(title: str, note: str, plot: str) -> str:
    return f"<h2>{title}</h2><p class=note>{escape(note)}</p><div class=scroll>{themed(plot)}</div>" if plot else ""


def _columns(*sections: str) -> str:
    """Return sections beside each other where there is room for it."""
    shown = [f"<section>{section}</section>" for section in sections if section]
    return f"<div class=two>{''.join(shown)}</div>" if len(shown) > 1 else "".join(shown)


def _side_by_side(plots: Iterable[str]) -> str:
    """Return plots beside each other where there is room, below each other on a phone; nothing without plots."""
    shown = "".join(f"<div class=scroll>{themed(plot)}</div>" for plot in plots if plot)
    return f"<div class=two>{shown}</div>" if shown else ""


def _change(before: str, after: str, improved: bool) -> str:
    return f"{before} →\N{NO-BREAK SPACE}{after}" if improved else before


def _milliseconds(engine: ReportedEngine) -> str:
    latency = engine.latency_ms
    digits = max(3, min(-math.floor(math.log10(latency.mad)), 6)) if latency.mad else 3  # the spread is never told as 0
    spread = f" ±\N{NO-BREAK SPACE}{latency.mad:.{digits}f}" if latency.mad is not None else ""
    return f"{latency.median:.{digits}f}{spread}\N{NO-BREAK SPACE}ms"


def _megabytes(engine: ReportedEngine) -> str:
    return f"{engine.size_bytes / 1e6:.2f}\N{NO-BREAK SPACE}MB"
