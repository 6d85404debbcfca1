"""The page of ``benchmarks.verdicts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.results_files import environment_line, markdown_table
from benchmarks.verdict_summaries import Calibration, Findings, Outcome, Score


def page(found: Findings, where: Mapping[str, object]) -> str:
    """Return the page of results."""
    outcomes = found.outcomes
    groups = list(dict.fromkeys(row.group for row in outcomes))
    parts = [
        "# Verdicts from a few samples\n\n"
        "Jobs see n of 10,000 decisions; `inside` is the share of jobs whose result, an engine or float, is inside its budget on all of "
        "them, `of engines` that of the jobs that ship an engine. Latencies are nominal, float's is 1; `best` is that of the fastest one "
        f"truly inside. {environment_line(where)}\n"
    ]
    for group in groups:
        own = [row for row in outcomes if row.group == group]
        parts.append(f"\n## {group.capitalize()}\n\n" + _all([row for row in own if row.n is None and row.budget is None]))
        parts.append("\n" + _outcomes([row for row in own if row.n is not None], "n"))
        parts.append("\n" + _outcomes([row for row in own if row.budget is not None], "budget"))
    parts.append("\n## Estimates\n\nRoot mean square error of the estimated drop over all engines of all jobs, and its mean.\n\n")
    parts.append(
        markdown_table(
            ["group", "n", "count", "margins", "margins by count", "mean error of margins"],
            [
                [row.group, str(row.n), f"{row.count:.5f}", f"{row.margins:.5f}", f"{row.margins / row.count:.2f}", f"{row.bias:+.5f}"]
                for row in found.errors
            ],
        )
    )
    parts.append("\n## Stated probabilities\n\nOf single engines, not chosen: share truly over the budget, by what was stated.\n\n")
    parts.append(_calibration(found.calibration, found.scores))
    parts.append("\n## Wrong claims at 95%\n\nMost wrong of all kinds of jobs, as they were run:\n\n")
    parts.append(
        markdown_table(
            ["rule", "population", "n", "budget", "jobs", "wrong", "at least (99%)"],
            [
                [row.rule, row.population, str(row.n), f"{row.budget:.1%}", str(row.jobs), f"{row.wrong:.3f}", f"{row.low:.3f}"]
                for row in found.wrong_claims
            ],
        )
    )
    parts.append("\nIn closed form, the worst of the budgets with so many independent engines, all of them just over it:\n\n")
    sizes = list(dict.fromkeys(row.n for row in found.closed_form))
    kinds = list(dict.fromkeys((row.rule, row.engines) for row in found.closed_form))
    cells = {(row.rule, row.engines, row.n): f"{row.wrong:.3f}" for row in found.closed_form}
    parts.append(
        markdown_table(
            ["rule", "engines", *(f"n = {n}" for n in sizes)],
            [[rule, str(engines), *(cells[rule, engines, n] for n in sizes)] for rule, engines in kinds],
        )
    )
    return "".join(parts)


def _all(rows: Sequence[Outcome]) -> str:
    """Return the table of all jobs of a group."""
    headers = ["rule", "jobs", "inside", "ship an engine", "of engines", "latency", "best", "latency where count ships what is inside"]
    lines = [
        [row.rule, f"{row.jobs:,}", *map(_share, (row.inside, row.shipped, row.shipped_inside, row.latency, row.best, row.honest_latency))]
        for row in rows
    ]
    return markdown_table(headers, lines)


def _outcomes(rows: Sequence[Outcome], by: str) -> str:
    """Return a table with a line for each sample size or budget."""
    rules = list(dict.fromkeys(row.rule for row in rows))
    keys = sorted({row.n if by == "n" else row.budget for row in rows}, key=lambda key: key or 0.0)
    table = {(row.n if by == "n" else row.budget, row.rule): row for row in rows}
    lines = []
    for key in keys:
        cells = [table[key, rule] for rule in rules]
        shown = [f"{_share(cell.inside)}; {_share(cell.shipped_inside)}; {_share(cell.latency)}" for cell in cells]
        lines.append([str(key) if by == "n" else f"{key:.1%}", *shown, _share(cells[0].best)])
    return markdown_table([by, *(f"{rule}: inside; of engines; latency" for rule in rules), "best"], lines)


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _calibration(rows: Sequence[Calibration], scores: Sequence[Score]) -> str:
    lines = []
    for score in scores:
        own = [row for row in rows if (row.group, row.by) == (score.group, score.by)]
        curve = ", ".join(f"{row.stated:.2f}: {row.over:.2f} ({row.engines:,})" for row in own)
        lines.append([score.group, score.by, curve, f"{score.brier:.3f}", f"{score.log_loss:.3f}"])
    return markdown_table(["group", "by", "stated: true (engines)", "Brier", "log loss"], lines)
