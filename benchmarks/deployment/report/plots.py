"""The plots of a simulation, SVG."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from benchmarks.deployment.deployment_run import Outcome
from benchmarks.deployment.failures import Kind
from benchmarks.deployment.workload import tenant_name
from benchmarks.svg_files import svg_file
from engine_builder.reporting.figures.drawing import WIDE, dress, svg_of


def plot(outcome: Outcome) -> str:
    """Return the course of a simulation as one picture: jobs, GPUs, and queue times."""

    def paint(figure: Figure) -> None:
        figure.subplots_adjust(hspace=0.55, wspace=0.22)
        _paint_jobs(figure, outcome)
        _paint_gpus(figure, outcome)
        _paint_waits(figure, outcome)
        _paint_tenants(figure, outcome)

    title = "Jobs that wait and run, busy GPUs, and queue times of a simulated deployment"
    return svg_file(svg_of("deployment", title, (WIDE, 6.4), (0.6, 0.5), paint))


def _paint_jobs(figure: Figure, outcome: Outcome) -> None:
    axes, samples = figure.add_subplot(2, 2, 1), outcome.journal.samples
    minutes = [sample.at / 60 for sample in samples]
    axes.plot(minutes, [sample.queued for sample in samples], label="waiting", linewidth=1)
    axes.plot(minutes, [sample.running for sample in samples], label="running", linewidth=1)
    for failure in outcome.failures:
        if failure.kind in {Kind.DATABASE, Kind.STORE}:
            axes.axvline(failure.at / 60, color="#c0362c", linewidth=0.7, linestyle="-" if failure.kind is Kind.DATABASE else ":")
    dress(axes, "Jobs; red: the database (dotted: the store) goes away", "minutes", "jobs")
    axes.legend()


def _paint_gpus(figure: Figure, outcome: Outcome) -> None:
    axes, samples = figure.add_subplot(2, 2, 2), outcome.journal.samples
    width = max(1, len(samples) // 60)
    for gpu, count in outcome.deployment.gpus.items():
        shares = np.array([sample.busy_gpus[gpu] / count for sample in samples])
        smooth = np.convolve(shares, np.ones(width) / width, mode="valid")
        axes.plot([sample.at / 60 for sample in samples][: len(smooth)], smooth, label=f"{gpu} ({count})", linewidth=1)
    dress(axes, "Busy GPUs of each type", "minutes", "share")
    axes.set_ylim(0, 1.05)
    axes.legend()


def _paint_waits(figure: Figure, outcome: Outcome) -> None:
    axes = figure.add_subplot(2, 2, 3)
    flood = tenant_name(min(1, outcome.deployment.tenants - 1))
    for label, is_flood in ((f"{flood}, which sends half of its jobs at once", True), ("all others", False)):
        times = [one for one in outcome.journal.jobs.values() if (one.job.tenant == flood) is is_flood and one.begun is not None]
        waits = np.sort([(one.begun or 0.0) - one.accepted for one in times])
        shares = np.linspace(0, 1, 201)
        if len(waits):
            axes.plot(np.quantile(waits, shares), shares, label=label, linewidth=1)
    dress(axes, "Queue time: share of jobs begun within", "seconds", "share")
    axes.legend(loc="lower right")


def _paint_tenants(figure: Figure, outcome: Outcome) -> None:
    axes, journal = figure.add_subplot(2, 2, 4), outcome.journal
    for rank in range(outcome.deployment.tenants):
        times = [one for one in journal.jobs.values() if one.job.tenant == tenant_name(rank) and one.begun is not None]
        if times:
            wait = float(np.mean([(one.begun or 0.0) - one.accepted for one in times]))
            axes.plot([len(times)], [wait], ".", color="#c0362c" if rank == 1 else "#1f5fa8", markersize=5)
    dress(axes, "Tenants; red: the one that sends half of its jobs at once", "jobs", "mean queue time, s")
    axes.set_ylim(bottom=0)
