"""The page of a simulation, Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.deployment.deployment_run import Outcome
from benchmarks.deployment.report.capacity import Plan
from benchmarks.deployment.report.figures import Figures, Spread
from benchmarks.results_files import environment_line, markdown_table


def page(outcome: Outcome, found: Figures, planned: Sequence[Plan], where: Mapping[str, object], picture: str, command: str) -> str:
    """Return the whole text.

    Args:
        outcome: The simulation.
        found: Its figures.
        planned: The small ones beside it; may be empty.
        where: The environment.
        picture: Name of the file with the plots.
        command: Which repeats it.
    """
    deployment = outcome.deployment
    gpus = ", ".join(f"{count} {gpu}" for gpu, count in deployment.gpus.items())
    return (
        "# A large deployment, simulated\n\n"
        f"{found.jobs:,} jobs of {deployment.tenants} tenants on {sum(deployment.gpus.values())} GPU workers ({gpus}) and "
        f"{deployment.cpu_workers} cpu workers, submitted in {outcome.span / 60:.0f} simulated minutes: {deployment.load:.0%} of "
        "what the cpu workers can do. Workers, stages, time and failures are simulated. Who is admitted, whose turn is next, which "
        "queue a stage goes to, who claims it, whose record counts, who is dead and what is taken over or resumed are decided by the "
        "product's own functions and statements, on a real database (SQLite) with the workflow engine's tables. Steps last as long "
        "as those of [recorded jobs](../deployment/recorded_jobs.json) (CPU seconds; their stages that build or time engines "
        "stand for stages on a GPU: **no job was recorded on a GPU yet**), each job longer or "
        "shorter by a factor of its own. Kept measurements, which "
        "spare further jobs of a network most of the analysis, are left out.\n\n"
        f"![Jobs that wait and run, busy GPUs, queue times]({picture})\n\n"
        + markdown_table(("what", "found"), _rows(found, outcome))
        + "\n"
        + markdown_table(("seconds or minutes", "median", "p95", "most", "mean"), _spreads(found))
        + "\n"
        + markdown_table(
            ("type of GPU", "workers", "busy"), [[gpu, str(deployment.gpus[gpu]), f"{share:.0%}"] for gpu, share in found.gpu_busy.items()]
        )
        + "\nBusy is counted to the last submission, so a short simulation shows GPUs that are hardly busy yet.\n"
        + (_capacity(planned) if planned else "")
        + f"\nThe simulation took {outcome.wall_seconds:.0f} s. {environment_line(where)} Repeat with `{command}`.\n"
    )


def _rows(found: Figures, outcome: Outcome) -> list[list[str]]:
    return [
        ["jobs lost (without an outcome)", str(found.not_ended)],
        ["finished steps that ran again", f"{found.finished_again} of {found.steps:,}"],
        ["steps broken off by failures, which ran again", f"{found.steps_broken_off}: {found.broken_off_share:.2%} of all time of steps"],
        ["jobs or stages begun while another process still ran them", f"{found.held_twice}, for {found.longest_overlap:g} s at most"],
        ["records of processes that owned the job no longer, refused", str(found.records_refused)],
        ["failures", ", ".join(f"{count} times {kind}" for kind, count in found.failures.items())],
        ["jobs taken over or resumed", str(outcome.journal.counts["jobs taken over or resumed"])],
        ["submissions refused and sent again", ", ".join(f"{count} ({why})" for why, count in found.refused.items()) or "0"],
        ["turns out of order", f"{found.unfair_turns} of {outcome.journal.counts['turns']:,}"],
        ["Jain's index of running jobs, among tenants that wait", f"{found.fairness:.3f}"],
        ["cpu workers that had a job, to the last submission", f"{found.cpu_busy:.0%}"],
        ["moments at which a GPU was free though a stage waited for its type", f"{found.gpu_idle_while_waiting:.1%}"],
    ]


def _spreads(found: Figures) -> list[list[str]]:
    named: Mapping[str, Spread] = {
        "queue time of all jobs, s": found.queue_seconds,
        "of the tenant that sends half of its jobs at once, s": found.queue_seconds_of_flood,
        "of the largest tenant, s": found.queue_seconds_of_largest,
        "of the smaller half of the tenants, s": found.queue_seconds_of_small,
        "a job's cost on GPUs, minutes": found.gpu_minutes,
        "a job's cost on cpu workers, minutes": found.cpu_minutes,
        "choosing the next job, real milliseconds": found.handing_over_ms,
    }
    return [[name, *(f"{value:.2f}" for value in (one.median, one.p95, one.most, one.mean))] for name, one in named.items()]


def _capacity(planned: Sequence[Plan]) -> str:
    rows = [
        [
            str(one.cpu_workers_per_gpu),
            f"{one.load:.0%}",
            f"{one.gpu_busy:.0%}",
            f"{one.median_queue_seconds:.0f}",
            f"{one.p95_queue_seconds:.0f}",
            f"{one.gpu_wait_share:.0%}",
        ]
        for one in planned
    ]
    headers = (
        "cpu workers a GPU",
        "load",
        "GPUs busy",
        "queue time, median s",
        "queue time, p95 s",
        "of a job's time on its cpu worker: waits for a GPU",
    )
    return (
        "\n## How many cpu workers a GPU\n\nSmall deployments (8 GPUs of 2 types, 3 tenants, no failures) by their cpu workers and their "
        "load, which is again that of the cpu workers.\n\n" + markdown_table(headers, rows)
    )
