"""The page that sets several jobs side by side: what differs between them, a plot, and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from engine_builder.reporting.about import date_in_words, machine_in_words
from engine_builder.reporting.amounts import probability_in_a_cell
from engine_builder.reporting.body.job_result import Outcome, ReportedEngine
from engine_builder.reporting.body.report_body import ReportBody
from engine_builder.reporting.comparing.jobs_plot import jobs_plot, share_of_budget, speedup_of
from engine_builder.reporting.comparing.read_jobs import ComparedJob
from engine_builder.reporting.decision.headline import headline, speedup_in_words
from engine_builder.reporting.figures.drawing import themed
from engine_builder.reporting.style import opening
from engine_builder.reporting.tables import counts, score, table
from engine_builder.reporting.verdict_words import ANSWERS

_HEAD = ["job", "model", "speed-up", "milliseconds", "score", "budget taken", "verdict", "inside the budget", "size", "layers", "made"]


def compare_page(jobs: Sequence[ComparedJob]) -> str:
    """Return the page.

    Args:
        jobs: At least one, each under its own name.
    """
    fastest = max(range(len(jobs)), key=lambda place: speedup_of(jobs[place].body.result))
    items = "".join(f"<li><b>{escape(job.name)}:</b> {escape(headline(job.body.result))}</li>" for job in jobs)
    differ = "".join(f"<li>{escape(line)}</li>" for line in differences(jobs))
    warned = f"<h2>What else differs</h2><p class=note>Numbers of jobs that differ in these do not compare as such.</p><ul>{differ}</ul>"
    return "\n".join(
        [
            f"{opening('Jobs compared')}<h1>{len(jobs)} jobs compared</h1><ul>{items}</ul>",
            f"<div class=scroll>{themed(jobs_plot(jobs))}</div>",
            f"<h2>Jobs</h2><div class=scroll>{table(_HEAD, [_row(job) for job in jobs], {fastest})}</div>",
            warned if differ else "",
            "</html>\n",
        ]
    )


def differences(jobs: Sequence[ComparedJob]) -> list[str]:
    """Return in what jobs differ that keeps their numbers from being compared as such, a line each."""
    lines = []
    for name, fact in _FACTS.items():
        found: dict[str, list[str]] = {}
        for job in jobs:
            found.setdefault(fact(job.body), []).append(job.name)
        if len(found) > 1:
            lines.append(f"{name}: " + "; ".join(f"{value} ({', '.join(names)})" for value, names in found.items()))
    return lines


def _row(job: ComparedJob) -> list[str]:
    body, result = job.body, job.body.result
    is_kept, verdict = result.outcome is Outcome.BASELINE_KEPT, result.verdict

    def scored(engine: ReportedEngine) -> str:
        return score(engine.accuracy, verdict.metric)

    return [
        job.name,
        "-" if body.made is None else body.made.model,
        _whole("baseline kept" if is_kept else speedup_in_words(result)),
        _change(result.baseline, result.chosen, lambda engine: f"{engine.latency_ms.median:.4g}", is_kept=is_kept),
        _whole(f"{verdict.metric} {_change(result.baseline, result.chosen, scored, is_kept=is_kept)}"),
        "0%" if is_kept else f"{max(share_of_budget(result, verdict.drop), 0.0):.0%}",
        _whole(ANSWERS[verdict.answer]),
        probability_in_a_cell(1.0 - verdict.probability_over_budget),
        _change(result.baseline, result.chosen, lambda engine: f"{engine.size_bytes / 1e6:.2f} MB", is_kept=is_kept),
        _whole(counts(result.chosen.precisions)),
        "-" if body.made is None else _whole(date_in_words(body.made.at)),
    ]


def _change(before: ReportedEngine, after: ReportedEngine, shown: Callable[[ReportedEngine], str], *, is_kept: bool) -> str:
    return _whole(shown(before) if is_kept else f"{shown(before)} → {shown(after)}")


def _whole(text: str) -> str:
    """Return a text that stays on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _budget(body: ReportBody) -> str:
    return f"{body.result.verdict.budget:.5g} of {body.result.verdict.metric}"


_FACTS: Mapping[str, Callable[[ReportBody], str]] = {
    "model": lambda body: "not known" if body.made is None else f"{body.made.model}, SHA-256 {body.made.model_sha256[:12]}",
    "machine": lambda body: machine_in_words(body.result.environment),
    "target": lambda body: str(body.config.get("target")),
    "latency": lambda body: str(body.result.latency_source),
    "budget": _budget,
    "validation samples": lambda body: f"{body.data.validation_samples:,}",
    "samples in a timed call": lambda body: str(body.data.timing_batch),
}
