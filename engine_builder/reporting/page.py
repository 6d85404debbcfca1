"""``report.html``: the report as one self-contained page, plots first and every number below; no script, nothing loaded from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import cast

from calibration.accuracy.measures.values import IDENTICAL_PSNR
from calibration.accuracy.metrics import Metric
from calibration.accuracy.verdict import IntervalMethod
from engine_builder.reporting.layer_plots import CLIPPED, bars_left_out, dependency_plot, kernel_plot, kernel_totals, sensitivity_plot
from engine_builder.reporting.plots import front_plot, path_plot, prediction_plot
from engine_builder.reporting.tables import (
    attempts_table,
    blocks_table,
    dependencies_table,
    engines_table,
    layers_table,
    pairs_table,
    reached_table,
    repairs_table,
    score,
    trials_table,
)

Row = Mapping[str, object]

_SMALL = 1e-5
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1f272e;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .4rem;padding-bottom:.15rem;border-bottom:1px solid #ccd2d8}
.lead{font-size:1.05rem;margin:.3rem 0 1rem}.note{color:#55626f;margin:.2rem 0 .6rem;font-size:14px}
.warning{border-left:.3rem solid #c0362c;background:#fbf0ee;margin:.5rem 0;padding:.4rem .8rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.8rem;margin:1rem 0}
.tile{border:1px solid #d5dadf;border-radius:.5rem;padding:.6rem .9rem}.tile b{display:block;font-size:1.2rem;line-height:1.3}
.tile span{display:block;color:#55626f;font-size:13px}
.badge{display:inline-block;border-radius:.3rem;padding:.05rem .5rem;color:#fff;background:#55626f;font-size:13px;font-weight:600}
.met{background:#1b7f4b}.met_on_sample{background:#8a6100}.not_met{background:#c0362c}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(30rem,100%),1fr));gap:1rem}
.scroll{overflow-x:auto}svg{display:block;width:100%;height:auto}svg.wide{min-width:46rem}svg.half{min-width:20rem}
svg text{font-family:system-ui,sans-serif!important}
details{margin:.5rem 0}summary{cursor:pointer;font-weight:600}
table{border-collapse:collapse;width:100%;font-size:13px;overflow-wrap:normal}
th,td{text-align:right;padding:.15rem .5rem;border-bottom:1px solid #e6e9ec}
th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere;min-width:8rem}th{background:#f4f6f7}.low{background:#eaf2fb}
.pairs td{text-align:left;overflow-wrap:anywhere}.pairs th{text-align:left}
.repairs :is(th,td):nth-child(2){text-align:left;width:60%}
.bar{display:inline-block;height:.6em;background:#2268c4;vertical-align:middle}
pre{background:#f4f6f7;padding:.6rem .8rem;font-size:13px;overflow-x:auto;white-space:pre-wrap}
@media print{details{display:block}.scroll{overflow:visible}}
"""
_ANSWERS = {"met": "met", "met_on_sample": "met on these samples", "not_met": "not met"}


def render(body: Mapping[str, object]) -> str:
    """Return the page.

    Args:
        body: The content of ``report.json``. What is not there is left out of the page.
    """
    result = cast(Row, body["result"])
    verdict = cast(Row, result["verdict"])
    answer = str(verdict["answer"])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>Optimization report</title><style>{_STYLE}</style><h1>Optimization report</h1>",
        f"<p class=lead>{escape(str(result['reason']))}</p>",
        *(f"<p class=warning><b>Warning:</b> {escape(text)}.</p>" for text in cast(Sequence[str], result.get("warnings") or ())),
        _tiles(result, body),
        f"<h2>Verdict</h2><p><span class='badge {answer if answer in _ANSWERS else ''}'>{escape(_ANSWERS.get(answer, answer))}</span> "
        f"{escape(verdict_in_words(result))}</p>",
        _engines(body, str(verdict["metric"])),
        *_layers(body),
        _dependencies(body),
        _baseline_repair(cast("Row | None", body.get("baseline_repair"))),
        _repairs(cast(Sequence[Row], body.get("repairs") or ())),
        _predictions(body),
        _notes(cast(Sequence[str], body["notes"])),
        _numbers(body, result),
        _repeat(body, result),
    ]
    return "\n".join([*(part for part in parts if part), "</html>\n"])


def verdict_in_words(result: Mapping[str, object]) -> str:
    """Return what the verdict says and how certain it is, for a person."""
    verdict = cast(Row, result["verdict"])
    if verdict["method"] == IntervalMethod.SAME_ENGINE:
        return "The accuracy budget is met: the engine is the model that was uploaded, so that nothing is lost."
    low, high = cast(Sequence[float], verdict["interval"])
    answer = {
        "met": "The accuracy budget is met",
        "met_on_sample": "The accuracy budget is met on these samples, which are too few to say so of all data",
        "not_met": "The accuracy budget is not met",
    }[str(verdict["answer"])]
    probability, confidence = cast(float, verdict["probability_over_budget"]), cast(float, verdict["confidence"])
    verb = _worsening(verdict)
    change = f"{verdict['metric']} {verb}s by {_amount(verdict['drop'])} (allowed {_amount(verdict['budget'])})"
    between = f"interval of the {verb}: {_signed(low)} to {_signed(high)}"
    if verdict["metric"] == Metric.PSNR:  # decibels against the float model itself, of which a drop says nothing to anybody
        change = f"psnr is {_decibels(verdict['drop'])} dB (at least {_decibels(verdict['budget'])})"
        between = f"interval: {_decibels(high)} to {_decibels(low)} dB"
    lines = [
        f"{answer}: {change} on {verdict['n']:,} samples, {verdict['flips']:,} of which changed; {between}, "
        f"each end with {_percent(confidence)} confidence (both at once: at least {_percent(max(2 * confidence - 1, 0.0))}).",
        f"Probability that the true {verb} is over the budget: {probability:.1%}.",
    ]
    if verdict["answer"] == "met_on_sample" and verdict["samples_needed"] is not None:
        lines.append(f"About {verdict['samples_needed']:,} samples with the same rates would settle it.")
    apart = {
        "held_out": "The search did not see these samples.",
        "shared": "The search saw the same samples: there are too few to keep some apart.",
    }
    lines.append(apart[str(verdict["selection"])])
    return " ".join(lines)


def _tiles(result: Row, body: Row) -> str:
    """Return the headline: what changed, with the spread of every time."""
    before, after = cast(Row, result["baseline"]), cast(Row, result["chosen"])
    improved = result["outcome"] == "improved"
    verdict = cast(Row, result["verdict"])
    allowed = f"allowed {_worsening(verdict)} {score(verdict['budget'], digits=5)}"
    if verdict["metric"] == Metric.PSNR:
        allowed = f"at least {_decibels(verdict['budget'])} dB"
    counts = ", ".join(f"{count} {precision}" for precision, count in cast(Mapping[str, int], after["precisions"]).items())
    predicted = cast("Row | None", result.get("predicted_speedup"))
    gain = cast(float, result["speedup"] if predicted is None else predicted["value"])
    speed = f"{gain:.2f}x" if improved else "baseline kept"
    span = "median latency of one call ± median absolute deviation of calls"
    if predicted is not None:
        low, high = cast(Sequence[float], predicted["range"])
        speed = f"{speed} predicted" if improved else speed
        between = f"; speedup between {low:.2f} and {high:.2f}" if improved else ""
        span = f"predicted latency of one call, not measured{between}"
    timed = _spread(body) if improved and predicted is None else ""
    tiles = [
        (speed, f"{'speedup: ' if improved else ''}latency {result['latency_source']}{timed}"),
        (_change(_milliseconds(before), _milliseconds(after), improved), span),
        (
            _change(score(before["accuracy"]), score(after["accuracy"]), improved),
            f"{verdict['metric']} on {verdict['n']:,} samples; {allowed}",
        ),
        (_change(_megabytes(before), _megabytes(after), improved), f"size; layers: {counts}"),
    ]
    cells = "".join(f"<div class=tile><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in tiles)
    return f"<div class=tiles>{cells}</div>"


def _engines(body: Row, metric: str) -> str:
    trials, chosen = cast(Sequence[Row], body["trials"]), _chosen(body)
    plots = [front_plot(trials, cast(Sequence[str], body["front"]), chosen, metric), path_plot(trials, chosen)]
    shown = "".join(f"<div class=scroll>{plot}</div>" for plot in plots if plot)
    search = cast(Row, body.get("search") or {})
    ended = f" The search ended after {search['trials']} trials: {search['ended']}." if search else ""
    note = "Every point is an engine that was built, scored and timed in turns with the baseline; filled ones are on the front."
    if cast(Row, body["result"])["latency_source"] == "predicted":
        note = (
            "Every point is an engine that was built. Its latency is predicted from the kernels that the build lists, not measured; its "
            "accuracy is that of the same explicit model in ONNX Runtime. Filled points are on the front."
        )
    return f"<h2>Engines</h2><p class=note>{note}{escape(ended)}</p><div class=two>{shown}</div>" if shown else ""


def _layers(body: Row) -> tuple[str, str]:
    layers = cast(Sequence[Row], body["layers"])
    plot, left_out = sensitivity_plot(layers), bars_left_out(layers)
    probes = cast(Row, body.get("probes") or {})
    samples = f", over {probes['samples']} samples (Hessian: {probes['hessian_samples']})" if probes else ""
    if probes:
        each = cast(float, probes["forwards"]) / cast(int, probes["samples"])
        samples += f"; {probes['decisions']} decisions took the work of {each:.1f} whole forward passes of each sample"
    rest = f" Less sensitive layers that are in the table below only: {left_out}." if left_out else ""
    note = f"Loss of the outputs against the float model's with one layer low, ± standard error{samples}.{rest}"
    sensitivity = _section("Sensitivity", note, plot)
    forecasts = cast(Sequence[Row], body.get("forecasts") or ())
    kernels = cast(Mapping[str, Mapping[str, float]], forecasts[0]["kernels_ms"]) if forecasts else {}
    baseline = _baseline_precision(cast(Row, body["result"]))
    before, after = kernel_totals(kernels, layers, baseline)
    is_predicted = cast(Row, body["config"])["target"] == "tensorrt-rtx"  # also where its engines are timed
    found = "Predicted for the kernels of" if is_predicted else "Profiled in"
    note = (
        f"{found} the baseline engine and in that with every layer low. All of these layers together: {before:.3g} ms before, "
        f"{after:.3g} ms as the chosen engine mixes them, without the conversions between layers of different precision. "
        "A layer that the runtime fused into another has no time of its own."
    )
    return sensitivity, _section("Kernel time", note, kernel_plot(kernels, layers, baseline))


def _dependencies(body: Row) -> str:
    found = cast("Row | None", body.get("dependency_map"))
    if not found:
        return ""
    left_out = cast(Sequence[str], found["left_out"])
    note = f"How much more (or less) two layers cost together than each alone. The colours end at the {CLIPPED}th percentile."
    text = _section("Dependencies", note, dependency_plot(found, cast(Sequence[Row], body["dependencies"])))
    if text and left_out:
        names = escape(", ".join(left_out))
        text += f"<details><summary>{len(left_out)} layers with weaker dependencies are not in the map</summary><p>{names}</p></details>"
    return text


def _baseline_repair(found: Row | None) -> str:
    if not found:
        return ""
    first = cast(Sequence[Row], found["attempts"])[0]
    own, why = first["name"], "is refused by the builder" if first["score"] is None else "misses the accuracy budget by itself"
    end = "The fastest that meets it is kept" if found["fits"] else "None that was tried meets it"
    note = (
        f"The baseline in {own} {why}. That is repaired before anything is lowered, so that it is not "
        f"credited to low precisions. {end}: {found['kept']}. A block is a layer with the nodes behind it; its loss is that of the block "
        f"alone in {own}, all others in float32, ± standard error."
    )
    tables = attempts_table(cast(Sequence[Row], found["attempts"]), str(found["kept"])) + blocks_table(cast(Sequence[Row], found["blocks"]))
    return _section("The baseline was repaired", note, tables)


def _repairs(tried: Sequence[Row]) -> str:
    note = f"Loss on calibration samples that the repair was not fitted to, ± standard error of the difference. {_gains(tried)}"
    rows = repairs_table(tried)
    return _section("Repairs", note, f"<div class=repairs>{rows}</div>" if rows else "")


def _gains(tried: Sequence[Row]) -> str:
    """Return what each kind of repair gained, a sentence each."""
    lines = []
    for what in dict.fromkeys(str(repair["what"]) for repair in tried):
        same = [repair for repair in tried if repair["what"] == what]
        kept = [repair for repair in same if repair["kept"]]
        before, after = (sum(cast(float, repair[key]) for repair in kept) for key in ("loss_before", "loss_after"))
        gained = f", which took the loss from {before:.3g} to {after:.3g}" if kept else ""
        lines.append(f"{what.capitalize()}: {len(kept)} of {len(same)} kept{gained}.")
    return " ".join(lines)


def _predictions(body: Row) -> str:
    plot = prediction_plot(cast(Sequence[Row], body["trials"]), cast(Sequence[Row], body.get("predictions") or ()))
    note = (
        "What the models said against what was measured, by trial. Latency as it was predicted when the trial was proposed (engines "
        "that no prediction proposed are left out); loss by the sensitivities and dependencies to second order."
    )
    return _section("Predicted and measured", note, plot)


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>What was done to the model and the data</h2><ul>{items}</ul>" if items else ""


def _numbers(body: Row, result: Row) -> str:
    kept = result["outcome"] == "baseline_kept" and body.get("reached_in") is not None
    of_which = f" in trial {body['reached_in']}, which is not what is kept" if kept else ""
    tables = [
        ("Engines", engines_table(result)),
        ("Trials", trials_table(cast(Sequence[Row], body["trials"]), cast(Sequence[str], body["front"]))),
        ("Layers", layers_table(cast(Sequence[Row], body["layers"]))),
        (f"Asked for and got{of_which}", reached_table(cast(Sequence[Row], body.get("reached") or ()))),
        ("Asked for and got in the repaired baseline", reached_table(cast(Sequence[Row], body.get("baseline_reached") or ()))),
        ("The strongest dependencies that were tested exactly", dependencies_table(cast(Sequence[Row], body["dependencies"]))),
    ]
    text = "".join(f"<details><summary>{name}</summary><div class=scroll>{table}</div></details>" for name, table in tables if table)
    return f"<h2>The numbers</h2>{text}"


def _repeat(body: Row, result: Row) -> str:
    data = cast(Row, body.get("data") or {})
    given = bool(data) and not data["validation_held_out_of_calibration"]
    validation = f" --validation {'calibration' if data['calibration_is_validation'] else 'validation'}.npz" if given else ""
    metric = " --metric-model metric.onnx" if data.get("metric_model") else ""
    command = (
        f"onnx-trt-optimizer optimize model.onnx --calibration calibration.npz{validation}{metric} --config config.json --output report/"
    )
    engine = cast(Row, result["engine"])
    facts = {**cast(Row, result["environment"]), "engine SHA-256": engine["sha256"]}
    if engine.get("exact_on"):
        facts["engine is exact on"] = engine["exact_on"]
    if probes := cast(Row, body.get("probes") or {}):
        facts["probes ran on"] = ", ".join(cast(Sequence[str], probes["providers"]))
    facts |= {key.replace("_", " "): _fact(value) for key, value in data.items() if value is not None}
    config = json.dumps(body["config"], sort_keys=True, ensure_ascii=False, indent=1)
    text = f"<pre>{escape(command)}</pre><p class=note>with this <code>config.json</code>:</p><pre>{escape(config)}</pre>"
    return f"<h2>Environment and how to repeat it</h2><div class='scroll pairs'>{pairs_table(facts)}</div>{text}"


def _fact(value: object) -> object:
    """Return a value for a reader: shares by name and lists as a line of text, yes or no, anything else as it is."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {share:.4g}" for name, share in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _section(title: str, note: str, plot: str) -> str:
    return f"<h2>{title}</h2><p class=note>{escape(note)}</p><div class=scroll>{plot}</div>" if plot else ""


def _chosen(body: Row) -> str | None:
    """Return the fingerprint of the chosen engine, None where the baseline was kept."""
    return cast("str | None", body.get("chosen"))


def _spread(body: Row) -> str:
    """Return the ratio of the final timing with its spread."""
    timing = cast(Mapping[str, Mapping[str, Row]], body.get("final_timing") or {})
    found = timing.get("relative", {}).get(_chosen(body) or "")
    return f" as {found['ratio']:.3f} ± {found['mad']:.3f} of the baseline's, both engines in turns" if found else ""


def _baseline_precision(result: Row) -> str:
    return next(iter(cast(Mapping[str, int], cast(Row, result["baseline"])["precisions"])), "")


def _change(before: str, after: str, improved: bool) -> str:
    return f"{before} →\N{NO-BREAK SPACE}{after}" if improved else before


def _milliseconds(engine: Row) -> str:
    latency = cast(Row, engine["latency_ms"])
    spread = f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{latency['mad']:.3f}" if latency["mad"] is not None else ""
    return f"{latency['median']:.3f}{spread}\N{NO-BREAK SPACE}ms"


def _megabytes(engine: Row) -> str:
    return f"{cast(int, engine['size_bytes']) / 1e6:.2f}\N{NO-BREAK SPACE}MB"


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _decibels(drop: object) -> str:
    return f"{IDENTICAL_PSNR - cast(float, drop):.2f}"


def _worsening(verdict: Row) -> str:
    """Return what a metric does where an engine is worse: of an error, less is better."""
    return "rise" if verdict["metric"] == Metric.NMSE else "drop"


def _amount(value: object) -> str:
    return _signed(value).removeprefix("+")


def _signed(value: object) -> str:
    found = cast(float, value)
    return f"{found:+.5f}" if found == 0 or abs(found) >= _SMALL else f"{found:+.2e}"
