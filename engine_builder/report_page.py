"""``report.html``: the report as one self-contained page, tables only, no script and nothing loaded from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import cast

Row = Mapping[str, object]

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #ccc}
table{border-collapse:collapse;width:100%;font-size:13px}th,td{text-align:right;padding:.15rem .5rem;border-bottom:1px solid #eee}
th:first-child,td:first-child{text-align:left;word-break:break-all}th{background:#f6f6f6}
.low{background:#e6f4ea}.bar{display:inline-block;height:.6em;background:#3b6fb6;vertical-align:middle}
.lead{font-size:1.05rem}.note{color:#555}
"""


def render(body: Mapping[str, object]) -> str:
    """Return the page.

    Args:
        body: The content of ``report.json``.
    """
    result = cast(Row, body["result"])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Optimization report</title>",
        f"<style>{_STYLE}</style><h1>Optimization report</h1>",
        f"<p class=lead>{escape(str(result['reason']))}</p>",
        _headline(result),
        f"<h2>Verdict</h2><p>{escape(verdict_in_words(result))}</p>",
        _notes(cast(Sequence[str], body["notes"])),
        _layers(cast(Sequence[Row], body["layers"])),
        _repairs(cast(Sequence[Row], body["repairs"])),
        _trials(cast(Sequence[Row], body["trials"]), cast(Sequence[str], body["front"])),
        _dependencies(cast(Sequence[Row], body["dependencies"])),
        _pairs("How to repeat it", {**cast(Row, result["environment"]), "config": _config(cast(Row, body["config"]))}),
    ]
    return "\n".join([*parts, "</html>\n"])


def verdict_in_words(result: Mapping[str, object]) -> str:
    """Return what the verdict says and how certain it is, for a person."""
    verdict = cast(Row, result["verdict"])
    low, high = cast(Sequence[float], verdict["interval"])
    answer = {
        "met": "The accuracy budget is met",
        "met_on_sample": "The accuracy budget is met on these samples, which are too few to say so of all data",
        "not_met": "The accuracy budget is not met",
    }[str(verdict["answer"])]
    probability, confidence = cast(float, verdict["probability_over_budget"]), cast(float, verdict["confidence"])
    lines = [
        f"{answer}: {verdict['metric']} drops by {_signed(verdict['drop'])} (allowed {_signed(verdict['budget'])}) "
        f"on {verdict['n']} samples, "
        f"{verdict['flips']} of which changed; interval of the drop: {_signed(low)} to {_signed(high)}, "
        f"each end with {confidence:.0%} confidence.",
        f"Probability that the true drop is over the budget: {probability:.1%}.",
    ]
    if verdict["answer"] == "met_on_sample" and verdict["samples_needed"] is not None:
        lines.append(f"About {verdict['samples_needed']:,} samples with the same rates would settle it.")
    apart = {
        "held_out": "The search did not see these samples.",
        "shared": "The search saw the same samples: there are too few to keep some apart.",
    }
    lines.append(apart[str(verdict["selection"])])
    return " ".join(lines)


def _config(config: Row) -> str:
    return json.dumps(config, sort_keys=True, ensure_ascii=False)


def _headline(result: Row) -> str:
    rows = []
    for name in ("baseline", "chosen"):
        item = cast(Row, result[name])
        latency = cast(Row, item["latency_ms"])
        precisions = ", ".join(f"{count} {precision}" for precision, count in cast(Mapping[str, int], item["precisions"]).items())
        rows.append(
            [
                name,
                f"{latency['median']:.3f} ms ± {latency['mad']:.3f}",
                f"{latency['p95']:.3f} ms",
                f"{item['accuracy']:.4f}",
                f"{cast(int, item['size_bytes']) / 1e6:.2f} MB",
                precisions,
            ]
        )
    speedup = cast(float, result["speedup"])
    table = _table(["engine", "median latency", "95th percentile", "accuracy", "size", "layers per precision"], rows)
    return f"{table}<p>Speedup {speedup:.2f}x, latency {escape(str(result['latency_source']))}.</p>"


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>What was done to the model and the data</h2><ul>{items}</ul>" if items else ""


def _layers(layers: Sequence[Row]) -> str:
    top = max((cast(float, row["loss"]) for row in layers if row["loss"] is not None), default=0.0) or 1.0
    rows = []
    for row in layers:
        loss = row["loss"]
        bar = f"<span class=bar style='width:{90 * cast(float, loss) / top:.0f}px'></span> " if loss is not None else ""
        cells = [
            escape(str(row["name"])),
            escape(str(row["op_type"])),
            escape(str(row["precision"])),
            bar + _with_error(loss, row["loss_error"]),
            _with_error(row["hessian"], row["hessian_error"]),
            f"{row['macs']:,}",
        ]
        rows.append((cells, row["precision"] not in ("fp32", "fp16", "bf16")))
    head = "".join(f"<th>{name}</th>" for name in ("layer", "operator", "precision", "loss alone", "Hessian estimate", "MACs"))
    text = "".join(f"<tr{' class=low' if low else ''}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for cells, low in rows)
    return f"<h2>Layers</h2><p class=note>Loss with only this layer low, ± standard error.</p><table><tr>{head}</tr>{text}</table>"


def _trials(trials: Sequence[Row], front: Sequence[str]) -> str:
    rows = []
    for row in trials:
        accuracy, latency = cast("Row | None", row["on_all"]), cast("Row | None", row["latency"])
        rows.append(
            [
                f"{row['index']}{' (front)' if row['fingerprint'] in front else ''}",
                str(row["order"]),
                str(row["low_layers"]),
                f"{accuracy['score']:.4f}" if accuracy else "-",
                f"{latency['median_ms']:.3f}" if latency else "-",
                f"{latency['ratio']:.3f}" if latency else "-",
                str(row["failure"]) if row["failure"] else "yes" if accuracy and cast(float, accuracy["excess"]) >= 0 else "no",
            ]
        )
    return "<h2>Trials</h2>" + _table(["trial", "proposed by", "low layers", "accuracy", "median ms", "of baseline", "in budget"], rows)


def _repairs(tried: Sequence[Row]) -> str:
    rows = [
        [
            str(repair["what"]),
            ", ".join(cast(Sequence[str], repair["where"])),
            f"{repair['loss_before']:.3g}",
            _with_error(repair["loss_after"], repair["gain_error"]),
            "yes" if repair["kept"] else "no",
        ]
        for repair in sorted(tried, key=lambda repair: not repair["kept"])
    ]
    note = "<p class=note>Loss on calibration samples that the repair was not fitted to, ± standard error of the difference.</p>"
    return f"<h2>Repairs</h2>{note}" + _table(["repair", "layers", "loss before", "loss after", "kept"], rows) if rows else ""


def _dependencies(tests: Sequence[Row]) -> str:
    rows = [[str(t["first"]), str(t["second"]), _with_error(t["dependency"], t["error"])] for t in tests[:20]]
    note = "<p class=note>Loss of both low minus the loss of each alone; the strongest of the pairs that were tested exactly.</p>"
    return f"<h2>Dependencies</h2>{note}" + _table(["first layer", "second layer", "extra loss"], rows) if rows else ""


def _pairs(title: str, values: Mapping[str, object]) -> str:
    return f"<h2>{title}</h2>" + _table(["what", "value"], [[key, str(value)] for key, value in values.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{body}</table>"


def _with_error(value: object, error: object) -> str:
    if value is None:
        return "-"
    return f"{cast(float, value):.3g}" + (f" ± {cast(float, error):.1g}" if error is not None else "")


def _signed(value: object) -> str:
    return f"{cast(float, value):+.5f}"
