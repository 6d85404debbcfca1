"""The parts of ``report.html`` that a reader decides from."""

from __future__ import annotations

from html import escape

from engine_builder.reporting.amounts import probability_in_a_cell, rounded_count
from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.reporting.decision.compared_engines import compared_engines
from engine_builder.reporting.decision.headline import engine_speedup, headline, neighbours_in_words
from engine_builder.reporting.decision.next_steps import next_steps, why_not_faster
from engine_builder.reporting.tables import score, table
from engine_builder.reporting.verdict_words import ANSWERS, amount, signed

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
    rows = []
    for one in judged:
        assert one.verdict is not None
        low, high = one.verdict.interval
        rows.append(
            [
                f"trial {one.trial.index}{' (chosen)' if one.trial.fingerprint == body.chosen else ''}",
                engine_speedup(one, body.result),
                score(one.verdict.engine),
                f"{signed(one.verdict.drop)} ({signed(low)}{_TO}{signed(high)})",
                probability_in_a_cell(1.0 - one.verdict.probability_over_budget),
                ANSWERS[one.verdict.answer],
                "-" if one.verdict.samples_needed is None else rounded_count(one.verdict.samples_needed),
            ]
        )
    worsening = body.result.verdict.metric.spec.worsening
    head = ["engine", "speed-up", str(body.result.verdict.metric), f"{worsening}, with its interval", "inside the budget", "verdict"]
    picked = {place for place, one in enumerate(judged) if one.trial.fingerprint == body.chosen}
    note = (
        "The engines that were built once more and judged, the fastest first. "
        f"The {worsening} allowed is {amount(body.result.verdict.budget)}. The last column is how many "
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
