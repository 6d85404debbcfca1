"""What self-check tells a person: a line for each check, a table of the engines, and a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from calibration.codec import value_from_json
from engine_builder.self_check.cases import CASES
from engine_builder.self_check.fit import Roofline
from engine_builder.self_check.result import Outcome, SelfCheck
from engine_builder.self_check.times import TimedCases

_WIDTH = 110
_ENGINES = ("engine", "plan MB", "predicted ms", "engine MB", "measured ms", "without graph", "runs")


def check_lines(result: SelfCheck) -> list[str]:
    """Return the checks, each with what was found and, unless it passed, what to do."""
    wide = max(len(check.name) for check in result.checks)
    lines = []
    for check in result.checks:
        indent = " " * (8 + wide)
        lines += textwrap.wrap(f"{check.outcome.value}  {check.name:<{wide}}  {check.found}", _WIDTH, subsequent_indent=indent)
        if check.todo and check.outcome is not Outcome.PASSED:
            lines += textwrap.wrap(f"to do: {check.todo}", _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return lines


def engine_lines(result: SelfCheck) -> list[str]:
    """Return the table of engines: the plan of tensorrt-rtx with its prediction, and what was measured on the GPU, where there is one."""
    timings = value_from_json(TimedCases, result.raw["times"]).timings if "times" in result.raw else {}
    rows: list[Sequence[str]] = [_ENGINES]
    for case in CASES:
        plan, engine = result.raw.get(f"rtx {case.name}", {}), result.raw.get(f"engine {case.name}", {})
        times = timings.get(case.name)
        predicted = value_from_json(Roofline, plan["roofline"]).predicted_ms if "roofline" in plan else None
        rows.append(
            (
                case.name,
                _number(plan.get("plan_bytes"), 1e6, 2),
                _number(predicted, 1, 4),
                _number(engine.get("plan_bytes"), 1e6, 2),
                _number(times and times.median_ms, 1, 4),
                _number(times and times.without_graph_ms, 1, 4),
                _number(times and times.runs, 1, 0),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_ENGINES))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]) for row in rows
    ]


def verdict_line(result: SelfCheck) -> str:
    """Return the verdict in one line."""
    counts = {outcome: sum(check.outcome is outcome for check in result.checks) for outcome in Outcome}
    said = f"{counts[Outcome.PASSED]} passed, {counts[Outcome.FAILED]} failed, {counts[Outcome.SKIPPED]} skipped"
    if result.failed:
        return f"Verdict: FAIL. {said}."
    if "times" in result.raw:
        return f"Verdict: pass. {said}."
    return f"Verdict: pass for what runs here. {said}; nothing was run or timed on a GPU, and latencies are predictions."


def _number(value: object, divisor: float, digits: int) -> str:
    return f"{value / divisor:.{digits}f}" if isinstance(value, int | float) else "-"
