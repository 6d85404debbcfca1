"""The page of what whole jobs on networks of real size took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from benchmarks.results_files import environment_line, markdown_table
from benchmarks.sizes.sized_job import SizedJob

_HEADERS = [
    "network",
    "model MB",
    "settings",
    "outcome",
    "layers",
    "trials",
    "ratio",
    "verdict",
    "wall s",
    "CPU s",
    "peak MB (PSS)",
    "peak MB (RSS)",
    "of 300 MB + 3 x model",
]
_STAGE_HEADERS = ["network", "process", "runs", "peak MB (PSS)", "CPU s", "read, in models", "written, in models"]


def page(jobs: Sequence[SizedJob], where: Mapping[str, object], samples: str) -> str:
    """Return the page of results.

    Args:
        jobs: What was run.
        where: The environment.
        samples: How many there were, in words.
    """
    return (
        f"# Networks of real size\n\nWhole jobs by the command line, to their end, {samples}, random weights, nothing kept from earlier "
        "jobs. *Ratio* is latency divided by the float model's, as the job says. Seconds and memory are of the whole process tree; "
        "memory is sampled. *PSS* counts a page that several processes share once, *RSS* once for each of them. The bar is peak PSS of "
        "at most 300 MB and three times the model. Below, every process by its name: *read* and *written* are bytes by system calls, in "
        "units of the model's size; mapped files are not in them, those of ended children are in a "
        "parent's, and what a process did after its last sample is not.\n\n"
        + markdown_table(_HEADERS, [row(job) for job in jobs])
        + "\n"
        + markdown_table(_STAGE_HEADERS, [line for job in jobs for line in stage_rows(job)])
        + f"\n{environment_line(where)} Repeat with `python -m benchmarks.sizes`.\n"
    )


def row(job: SizedJob) -> list[str]:
    """Return a job's row of the table."""
    took = [
        f"{job.usage.wall_seconds:.0f}",
        f"{job.usage.cpu_seconds:.0f}",
        f"{job.peak_pss_bytes / 1e6:.0f}",
        f"{job.usage.peak_rss_bytes / 1e6:.0f}",
        f"{job.share_of_allowed:.2f}",
    ]
    size = f"{job.model_bytes / 1e6:.0f}"
    settings = json.dumps({key: value for key, value in job.config.items() if key != "search"})
    if not job.result:
        return [job.name, size, settings, f"exit {job.usage.status}: {job.message}", *["-"] * 4, *took]
    chosen = cast("Mapping[str, object]", job.result["chosen"])
    verdict = cast("Mapping[str, object]", job.result["verdict"])
    precisions = cast("Mapping[str, int]", chosen["precisions"])
    speedup = job.result.get("speedup")
    return [
        job.name,
        size,
        settings,
        str(job.result["outcome"]).replace("_", " "),
        ", ".join(f"{count} {precision}" for precision, count in precisions.items()),
        str(job.trials),
        f"{1.0 / speedup:.3f}" if isinstance(speedup, float) and speedup > 0.0 else "-",
        str(verdict["answer"]).replace("_", " "),
        *took,
    ]


def stage_rows(job: SizedJob) -> list[list[str]]:
    """Return a row for each name of a process of the job."""
    return [
        [
            job.name,
            name,
            str(use.runs),
            f"{use.peak_pss_bytes / 1e6:.0f}",
            f"{use.cpu_seconds:.1f}",
            f"{use.read_bytes / job.model_bytes:.1f}",
            f"{use.written_bytes / job.model_bytes:.1f}",
        ]
        for name, use in job.stages.items()
    ]
