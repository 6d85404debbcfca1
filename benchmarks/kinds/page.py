"""The page of what jobs on networks of every kind said, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from benchmarks.kinds.outside import Found
from benchmarks.results_files import environment_line, markdown_table

_HEADERS = [
    "network",
    "measure",
    "outcome",
    "verdict",
    "by",
    "speed-up said",
    "speed-up outside",
    "kept",
    "truth: float",
    "engine",
    "true",
    "s",
]


def page(found: Sequence[Found], where: Mapping[str, object], budget: float) -> str:
    """Return the page of results."""
    return (
        f"# Networks of every kind\n\nWhole jobs by the command line, one network of each kind, no labels, budget {100 * budget:g}% of the "
        "float model's score. *Verdict* and *by* (the metric) are the job's own words. The rest is measured afterwards in plain "
        "onnxruntime, on samples that the job never saw, by code that shares nothing with the product: *kept* is the user's measure with "
        "the float model's own answers as the truth, *truth* the same (or the second measure named) against labels. *True* says whether "
        "the engine keeps the budget: `yes` by the float model's answers, `by labels` only by those, `NO` by neither. Speed-ups outside "
        "are ratios of CPU time of one thread.\n\n"
        + markdown_table(_HEADERS, [row(one) for one in found])
        + f"\n{environment_line(where)} Repeat with `python -m benchmarks.kinds`.\n"
    )


def row(found: Found) -> list[str]:
    """Return a network's row of the table."""
    if found.quality is None or found.float_quality is None:
        return [found.name, found.measure, f"exit {found.status}: {found.message}", *["-"] * 7, found.is_true, f"{found.wall_seconds:.0f}"]
    verdict = cast("Mapping[str, object]", found.result["verdict"])
    said = found.result.get("speedup")
    return [
        found.name,
        found.measure,
        str(found.result["outcome"]).replace("_", " "),
        str(verdict["answer"]).replace("_", " "),
        str(verdict["metric"]),
        f"{said:.2f}" if isinstance(said, float) else "-",
        f"{found.speedup:.2f}",
        f"{found.quality.kept:.4f}",
        f"{found.float_quality.truth:.4f}",
        f"{found.quality.truth:.4f}",
        found.is_true,
        f"{found.wall_seconds:.0f}",
    ]
