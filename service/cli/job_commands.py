"""What the commands about jobs do that run none: list, delete, report of a server, and inspect."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence

from service.cli.commands import Output, client_of
from service.cli.text_table import text_table
from service.client.views import JobRow
from service.errors import NotFoundError
from service.intake.given_files import check_model

REPORT = "report.html"


def list_jobs(arguments: argparse.Namespace, out: Output) -> None:
    """List the jobs of a server, the newest first."""
    with client_of(arguments) as client:
        rows = list(client.jobs(state=arguments.state, limit=arguments.limit))
    for line in _table(rows) if rows else ("no jobs",):
        out(line)


def delete(arguments: argparse.Namespace, out: Output) -> None:
    """Delete a finished job and its files from the server."""
    with client_of(arguments) as client:
        client.delete(arguments.job)
    out(f"deleted {arguments.job}")


def report(arguments: argparse.Namespace, out: Output) -> None:
    """Download a job's report and print where it is; with --open, show it."""
    with client_of(arguments) as client:
        artifacts = client.artifacts(arguments.job)
        found = [artifact for artifact in artifacts if artifact.name == REPORT]
        if not found:
            of_branches = [artifact.name for artifact in artifacts if artifact.name.endswith(f"/{REPORT}")]
            if of_branches:
                raise NotFoundError(
                    f"job {arguments.job}: it has a report for each type of GPU: {', '.join(of_branches)}",
                    fix="Name the job of a type, which `watch` prints, or get all files with `download`.",
                )
            raise NotFoundError(f"job {arguments.job}: it has no report", fix="A job has one once it has succeeded: see `watch`.")
        path = client.download_artifact(arguments.job, found[0], arguments.output)
    out(str(path))
    if arguments.open:
        webbrowser.open(path.resolve().as_uri())


def inspect(arguments: argparse.Namespace, out: Output) -> None:
    """Tell what can be told of a model before a job: data, layers, targets, time; exit status 2 where it cannot be optimized."""
    from service.cli.inspecting.preflight_lines import inspect_model  # loads onnx and the runtime; the client's commands need neither

    check_model(arguments.model)
    inspect_model(arguments.model, arguments.samples, out)


def _table(rows: Sequence[JobRow]) -> list[str]:
    head = ("JOB", "STATE", "DONE", "CREATED", "TARGET", "OUTCOME")
    return text_table(head, map(_cells, rows))


def _cells(row: JobRow) -> tuple[str, ...]:
    outcome = "" if row.outcome is None else row.outcome.replace("_", " ") + _faster(row)
    return (row.id, row.state, f"{row.progress:.0%}", row.created_at or "", row.target or "", outcome)


def _faster(row: JobRow) -> str:
    """Return the speed-up as it stands behind the outcome, called predicted where it is; nothing of a kept baseline."""
    if row.outcome == "baseline_kept":
        return ""
    value = (row.predicted_speedup or {}).get("value")
    if isinstance(value, int | float):
        return f", predicted {value:.2f} times as fast"
    return "" if row.speedup is None else f", {row.speedup:.2f} times as fast"
