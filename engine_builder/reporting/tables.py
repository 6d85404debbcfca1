"""The tables of ``report.html``: every number behind the plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import cast

Row = Mapping[str, object]

BASELINES = ("fp32", "fp16", "bf16")
MAX_PAIRS = 20
_SMALL = 1e-3


def engines_table(result: Row) -> str:
    """Return both engines side by side."""
    rows = []
    for name in ("baseline", "chosen"):
        item = cast(Row, result[name])
        latency = cast(Row, item["latency_ms"])
        precisions = ", ".join(f"{count} {precision}" for precision, count in cast(Mapping[str, int], item["precisions"]).items())
        rows.append(
            [
                name,
                f"{latency['median']:.3f} ms ± {latency['mad']:.3f}" if latency["runs"] else f"{latency['median']:.3f} ms (predicted)",
                f"{latency['p95']:.3f} ms" if latency["runs"] else "-",
                f"{latency['runs']}",
                score(item["accuracy"]),
                f"{cast(int, item['size_bytes']) / 1e6:.2f} MB",
                precisions,
            ]
        )
    return table(["engine", "median latency", "95th percentile", "calls", "accuracy", "size", "layers per precision"], rows)


def layers_table(layers: Sequence[Row]) -> str:
    """Return every layer with its precision and sensitivity; low ones are shaded."""
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
        rows.append((cells, row["precision"] not in BASELINES))
    head = "".join(f"<th>{name}</th>" for name in ("layer", "operator", "precision", "loss alone", "Hessian estimate", "MACs"))
    text = "".join(f"<tr{' class=low' if low else ''}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for cells, low in rows)
    return f"<table><tr>{head}</tr>{text}</table>"


def reached_table(rows: Sequence[Row]) -> str:
    """Return the precision that each layer asked for beside the one that its kernel has, disagreements with their reason first."""
    ordered = sorted(rows, key=lambda row: row["reason"] is None)
    cells = [[str(row[key] or "-") for key in ("layer", "asked", "got", "kernel", "reason")] for row in ordered]
    return table(["layer", "asked for", "got", "kernel", "why they differ"], cells) if cells else ""


def trials_table(trials: Sequence[Row], front: Sequence[str]) -> str:
    """Return every trial in the order in which it was made."""
    rows = []
    for row in trials:
        accuracy, latency = cast("Row | None", row["on_all"]), cast("Row | None", row["latency"])
        rows.append(
            [
                f"{row['index']}{' (front)' if row['fingerprint'] in front else ''}",
                str(row["order"]),
                str(row["low_layers"]),
                score(accuracy["score"]) if accuracy else "-",
                f"{latency['median_ms']:.3f}" if latency else "-",
                f"{latency['ratio']:.3f}" if latency else "-",
                str(row["failure"]) if row["failure"] else "yes" if accuracy and cast(float, accuracy["excess"]) >= 0 else "no",
            ]
        )
    return table(["trial", "proposed by", "low layers", "accuracy", "median ms", "of baseline", "in budget"], rows)


def dependencies_table(tests: Sequence[Row]) -> str:
    """Return the strongest of the pairs that were tested exactly; nothing where none was."""
    rows = [[str(t["first"]), str(t["second"]), _with_error(t["dependency"], t["error"])] for t in tests[:MAX_PAIRS]]
    return table(["first layer", "second layer", "extra loss"], rows) if rows else ""


def repairs_table(tried: Sequence[Row]) -> str:
    """Return every repair that was tried, those that are kept first; nothing where none was."""
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
    return table(["repair", "layers", "loss before", "loss after", "kept"], rows) if rows else ""


def attempts_table(attempts: Sequence[Row], kept: str) -> str:
    """Return the baselines that were tried where the target's own misses the budget, that one first."""
    rows = [
        [
            f"{row['name']}{' (kept)' if row['name'] == kept else ''}",
            ", ".join(f"{count} {precision}" for precision, count in cast(Mapping[str, int], row["precisions"]).items()),
            "-" if row["score"] is None else f"{row['score']:.5g}",
            "-" if row["latency_ms"] is None else f"{row['latency_ms']:.4g}",
            str(row["failure"] or ("yes" if row["fits"] else "no")),
        ]
        for row in attempts
    ]
    return table(["baseline", "layers per precision", "accuracy", "median ms", "in budget"], rows)


def blocks_table(blocks: Sequence[Row]) -> str:
    """Return what each block of nodes loses alone, and what it has in the repaired baseline."""
    rows = [[str(row["layer"]), str(row["nodes"]), _with_error(row["loss"], row["loss_error"]), str(row["precision"])] for row in blocks]
    return table(["block from", "nodes", "loss alone", "in the baseline"], rows) if rows else ""


def pairs_table(values: Mapping[str, object]) -> str:
    """Return names with their values, sorted."""
    return table(["what", "value"], [[key, str(value)] for key, value in sorted(values.items())])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text."""
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{body}</table>"


def score(value: object, digits: int = 4) -> str:
    """Return a score for a reader; those of errors may be far below any share of samples, and keep their digits."""
    found = cast(float, value)
    return f"{found:.{digits}f}" if found == 0 or abs(found) >= _SMALL else f"{found:.2e}"


def _with_error(value: object, error: object) -> str:
    if value is None:
        return "-"
    return f"{cast(float, value):.3g}" + (f" ± {cast(float, error):.1g}" if error is not None else "")
