"""The parts of ``report.html`` that a reader decides from."""

from __future__ import annotations

from html import escape

from calibration.accuracy.metrics import Metric
from engine_builder.reporting.amounts import probability_in_a_cell, rounded_count
from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.reporting.decision.compared_engines import compared_engines
from engine_builder.reporting.decision.headline import engine_speedup, headline, neighbours_in_words
from engine_builder.reporting.decision.next_steps import next_steps, why_not_faster
from engine_builder.reporting.tables import score, table
from engine_builder.reporting.verdict_words import ANSWERS, amount, decibels, signed

_TO = "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}"


def lead(body: ReportBody) -> str:
    """Return the headline, why, and the neighbours of what was chosen."""
    lines = neighbours_in_words(body)
    items = "".join(f"<li><b>{name}:</b> {escape(words)}</li>" for name, words in lines)
    text = f"<p class=lead><b>{escape(headline(body.result))}</b></p><p>{escape(body.result.reason)}</p>"
    return f"{text}<ul>{items}</ul>" if items else text


def finalists_section(body: ReportBody) -> str:
    """Return the engines that were judged, with their verdicts; nothing where none was."""
    judged = [one for one in compared_engines(body) if one.verdict is not None]
    if not judged:
        return ""
    rows, metric, budget = [], body.result.verdict.metric, body.result.verdict.budget
    for one in judged:
        assert one.verdict is not None
        rows.append(
            [
                f"trial {one.trial.index}{' (chosen)' if one.trial.fingerprint == body.chosen else ''}",
                engine_speedup(one, body.result),
                score(one.verdict.engine, metric),
                _with_interval(metric, one.verdict.drop, one.verdict.interval),
                probability_in_a_cell(1.0 - one.verdict.probability_over_budget),
                ANSWERS[one.verdict.answer],
                "-" if one.verdict.samples_needed is None else rounded_count(one.verdict.samples_needed),
            ]
        )
    worsening, allowed = metric.spec.worsening, f"The {metric.spec.worsening} allowed is {amount(budget)}."
    if metric.spec.unit:
        worsening, allowed = str(metric), f"At least {decibels(budget)} {metric.spec.unit} are asked for."
    head = ["engine", "speed-up", str(metric), f"{worsening}, with its interval", "inside the budget", "verdict"]
    picked = {place for place, one in enumerate(judged) if one.trial.fingerprint == body.chosen}
    note = (
        "The engines that were built once more and judged, the fastest first. "
        f"{allowed} The last column is how many "
        "validation samples would settle the verdict, if they changed at the same rate."
    )
    return f"<h2>Finalists</h2><p class=note>{note}</p><div class=scroll>{table([*head, 'samples to be certain'], rows, picked)}</div>"


def why_section(body: ReportBody) -> str:
    """Return why no faster engine was chosen."""
    return _list("Why not faster", why_not_faster(body))


def next_section(body: ReportBody) -> str:
    """Return what to do next."""
    return _list("What next", next_steps(body))


def _list(title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def _with_interval(metric: Metric, drop: float, interval: tuple[float, float]) -> str:
    low, high = interval
    if metric.spec.unit:  # as in the verdict: decibels against the float model itself
        return f"{decibels(drop)} ({decibels(high)}{_TO}{decibels(low)})"
    return f"{signed(drop)} ({signed(low)}{_TO}{signed(high)})"
