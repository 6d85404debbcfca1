"""The tables of ``report.html``: every number behind the plots."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from html import escape

from calibration.accuracy.measures.values import IDENTICAL_PSNR
from calibration.accuracy.metrics import Metric
from calibration.number_formats.precision import Precision
from engine_builder.backends.achieved_precision import AchievedPrecision, Rule
from engine_builder.records.corrections import Correction
from engine_builder.records.float_plan import BlockLoss, FloatAttempt
from engine_builder.records.trial import Latency, Trial
from engine_builder.reporting.amounts import POINTS, is_share, rounded
from engine_builder.reporting.body.job_result import JobResult
from engine_builder.reporting.body.layer_facts import MeasuredPair, ReportedLayer
from engine_builder.reporting.body.report_body import ColumnChange
from engine_builder.reporting.body.score_of_loss import DropEstimate
from engine_builder.reporting.body.search_facts import order_in_words
from engine_builder.stage_io.engines import FinalLatency

BASELINES = (Precision.FP32, Precision.FP16, Precision.BF16)
MAX_PAIRS = 20
_SMALL = 1e-3
_IDENTICAL = "identical"
_NUMBER = re.compile(r"[-+±<>]?[ ]?[0-9][0-9.,e+-]*[ %x]*(ms|MB|dB|points)?( ± [0-9.e+-]+( ms|%)?)?( \\([^)]*[0-9][^)]*\\))?")


def engines_table(result: JobResult) -> str:
    """Return both engines side by side."""
    rows = [
        [
            name,
            _median(engine.latency_ms),
            "-" if engine.latency_ms.p95 is None else f"{engine.latency_ms.p95:.3f} ms",
            str(engine.latency_ms.runs),
            score(engine.accuracy, result.verdict.metric),
            f"{engine.size_bytes / 1e6:.2f} MB",
            counts(engine.precisions),
        ]
        for name, engine in (("baseline", result.baseline), ("chosen", result.chosen))
    ]
    return table(["engine", "median latency", "95th percentile", "calls", "accuracy", "size", "layers per precision"], rows)


def outputs_table(result: JobResult) -> str:
    """Return what each output was taken for, why, and by what it is measured where the metric is fidelity."""
    rows = [
        [
            one.name,
            " and ".join(one.kinds),
            one.why,
            one.measure if result.verdict.metric is Metric.FIDELITY else "-",
        ]
        for one in result.outputs
    ]
    return table(["output", "taken for", "because", "measure"], rows)


def layers_table(layers: Sequence[ReportedLayer], metric: Metric) -> str:
    """Return every layer with its precision and sensitivity, also in the job's metric where that is known; quantized ones are shaded.

    Args:
        layers: All layers.
        metric: The job's.
    """
    is_known = any(layer.drop is not None for layer in layers)
    top = max((layer.loss for layer in layers if layer.loss is not None), default=0.0) or 1.0
    rows = []
    for layer in layers:
        bar = f"<span class=bar style='width:{90 * layer.loss / top:.0f}px'></span> " if layer.loss is not None else ""
        cells = [
            escape(layer.name),
            escape(layer.op_type),
            layer.precision.value,
            bar + _with_error(layer.loss, layer.loss_error),
            *([drop_in_words(metric, layer.drop)] if is_known else []),
            _with_error(layer.hessian, layer.hessian_error),
            f"{layer.macs:,}",
        ]
        rows.append((cells, layer.precision not in BASELINES))
    told = [f"{metric.spec.worsening} of {metric} alone, about"] if is_known else []
    names = ["layer", "operator", "precision", "loss alone", *told, "Hessian estimate", "MACs"]
    kinds = ["", "", "", *[" class=n"] * (len(names) - 3)]
    head = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, names, strict=True))
    text = "".join(
        f"<tr{' class=low' if quantized else ''}>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, cells, strict=True))
        + "</tr>"
        for cells, quantized in rows
    )
    return f"<table><tr>{head}</tr>{text}</table>"


def drop_in_words(metric: Metric, drop: DropEstimate | None) -> str:
    """Return an estimated drop with its interval, in the unit of the budget: "1.2 (0.9 to 1.5) points"."""
    if drop is None:
        return "-"
    unit = POINTS if is_share(metric) else 1.0
    name = " points" if is_share(metric) else f" {metric.spec.unit}" if metric.spec.unit else ""
    return f"{rounded(unit * drop.drop)} ({rounded(unit * drop.low)} to {rounded(unit * drop.high)}){name}"


def columns_table(columns: Sequence[ColumnChange]) -> str:
    """Return what changed in each value of a sample, the one whose error grew most first; nothing without any."""
    known = [math.inf if row.error_after is None or row.error_before is None else row.error_after - row.error_before for row in columns]
    order = sorted(range(len(columns)), key=lambda place: -known[place])
    rows = [
        [
            str(place),
            *(_number(value) for value in (columns[place].error_before, columns[place].error_after, columns[place].largest_change)),
        ]
        for place in order
    ]
    return table(["column", "error of the float model", "error of the engine", "largest change"], rows) if rows else ""


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def achieved_table(rows: Sequence[AchievedPrecision]) -> str:
    """Return the precision that each layer asked for beside the one that its kernel has, disagreements with their reason first."""
    ordered = sorted(rows, key=lambda row: row.reason is None)
    has_tactics = any(row.tactic is not None for row in rows)
    cells = [
        [
            row.layer or "-",
            row.asked.value,
            row.got or ("unknown" if row.reason is Rule.UNKNOWN else "-"),
            row.kernel or "-",
            *([row.tactic or "-"] if has_tactics else []),
            row.reason or "-",
        ]
        for row in ordered
    ]
    columns = ["layer", "asked for", "got", "kernel", *(["tactic"] if has_tactics else []), "why they differ"]
    return table(columns, cells) if cells else ""


def trials_table(trials: Sequence[Trial], front: Collection[str], metric: Metric | None = None) -> str:
    """Return every trial in the order in which it was made.

    Args:
        trials: All trials.
        front: Fingerprints of those that no other beats.
        metric: The job's.
    """
    rows = [
        [
            f"{trial.index}{' (front)' if trial.fingerprint in front else ''}",
            order_in_words(trial.order) + ("" if trial.made_with is None else ", with corrected biases alone"),
            str(trial.low_layers),
            "-" if trial.on_all is None else score(trial.on_all.score, metric),
            "-" if trial.latency is None else f"{trial.latency.median_ms:.3f}",
            "-" if trial.latency is None else ratio(trial.latency),
            trial.failure or _yes_or_no(trial.met),
        ]
        for trial in trials
    ]
    return table(["trial", "proposed by", "quantized layers", "accuracy", "median ms", "of baseline", "in budget"], rows)


def dependencies_table(tests: Sequence[MeasuredPair]) -> str:
    """Return the strongest of the pairs that were tested exactly; nothing where none was."""
    rows = [[pair.first, pair.second, _with_error(pair.dependency, pair.error)] for pair in tests[:MAX_PAIRS]]
    return table(["first layer", "second layer", "extra loss"], rows) if rows else ""


def corrections_table(tried: Sequence[Correction]) -> str:
    """Return every correction that was tried, those that are kept first; nothing where none was."""
    rows = [
        [
            correction.what.value,
            ", ".join(correction.where),
            f"{correction.loss_before:.3g}",
            _with_error(correction.loss_after, correction.gain_error),
            _yes_or_no(correction.kept),
        ]
        for correction in sorted(tried, key=lambda correction: not correction.kept)
    ]
    return table(["correction", "layers", "loss before", "loss after", "kept"], rows) if rows else ""


def attempts_table(attempts: Sequence[FloatAttempt], kept: str) -> str:
    """Return the baselines that were tried where the target's own misses the budget, that one first.

    Args:
        attempts: What was tried.
        kept: Name of the one that the baseline has now.
    """
    rows = [
        [
            f"{attempt.name}{' (kept)' if attempt.name == kept else ''}",
            counts(attempt.precisions),
            "-" if attempt.score is None else f"{attempt.score:.5g}",
            "-" if attempt.latency_ms is None else f"{attempt.latency_ms:.4g}",
            attempt.failure or _yes_or_no(attempt.fits),
        ]
        for attempt in attempts
    ]
    return table(["baseline", "layers per precision", "accuracy", "median ms", "in budget"], rows)


def blocks_table(blocks: Sequence[BlockLoss]) -> str:
    """Return what each block of nodes loses alone, and what it has in the baseline with its fallback."""
    rows = [[block.layer, str(block.nodes), _with_error(block.loss, block.loss_error), block.precision.value] for block in blocks]
    return table(["block from", "nodes", "loss alone", "in the baseline"], rows) if rows else ""


def pairs_table(values: Mapping[str, object]) -> str:
    """Return names with their values, sorted."""
    return table(["what", "value"], [[key, str(value)] for key, value in sorted(values.items())])


def table(head: Sequence[str], rows: Sequence[Sequence[str]], picked: Collection[int] = ()) -> str:
    """Return a table of plain text, columns of numbers set from the right.

    Args:
        head: Names of the columns.
        rows: Their cells.
        picked: Rows that stand out.
    """
    kinds = [" class=n" if _are_numbers([row[place] for row in rows]) else "" for place in range(len(head))]
    body = "".join(
        f"<tr{' class=picked' if place in picked else ''}>"
        + "".join(f"<td{kind}>{escape(text)}</td>" for kind, text in zip(kinds, row, strict=True))
        + "</tr>"
        for place, row in enumerate(rows)
    )
    return f"<table><tr>{''.join(f'<th{kind}>{name}</th>' for kind, name in zip(kinds, head, strict=True))}</tr>{body}</table>"


def _are_numbers(cells: Sequence[str]) -> bool:
    """Return whether all of a column that is not empty is numbers, with units and spreads."""
    told = [text for text in cells if text != "-"]
    return bool(told) and all(map(_NUMBER.fullmatch, told))


def ratio(latency: Latency) -> str:
    """Return a trial's latency by the baseline's with its standard error, where it was measured."""
    return f"{latency.ratio:.3f}" + (f" ± {latency.ratio_error:.3f}" if latency.ratio_error > 0.0 else "")


def counts(precisions: Mapping[str, int]) -> str:
    """Return how many layers have each precision, as a line of text."""
    return ", ".join(f"{count} {precision}" for precision, count in precisions.items())


def score(value: float, metric: Metric | None = None) -> str:
    """Return a score for a reader; those of errors may be far below any share of samples, and keep their digits.

    Args:
        value: The score.
        metric: Its metric; decibels have their unit, and an end where outputs are the float model's.
    """
    if metric is not None and metric.spec.unit:
        return _IDENTICAL if value >= IDENTICAL_PSNR else f"{value:.2f} {metric.spec.unit}"
    return f"{value:.4f}" if value == 0 or abs(value) >= _SMALL else f"{value:.2e}"


def _median(latency: FinalLatency) -> str:
    spread = " (predicted)" if latency.mad is None else f" ± {latency.mad:.3f}"
    return f"{latency.median:.3f} ms{spread}"


def _yes_or_no(holds: bool) -> str:
    return "yes" if holds else "no"


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" + (f" ± {error:.1g}" if error is not None else "")
