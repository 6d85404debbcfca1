"""The figures of a simulation: queue times, fairness, idle GPUs, lost work and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.deployment.deployment_run import Outcome
from benchmarks.deployment.failures import Kind
from benchmarks.deployment.journal import JobTimes
from benchmarks.deployment.workload import tenant_name


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles of some numbers, and their mean; all 0 where there are none."""

    median: float
    p95: float
    most: float
    mean: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a simulation found. Times are simulated, but for ``handing_over_ms``.

    Attributes:
        jobs: That were submitted.
        not_ended: Of them, have no outcome in the jobs table: lost jobs.
        steps: That were recorded as finished.
        steps_broken_off: Ended before their end, by a failure; each ran again.
        finished_again: Finished steps that began again.
        held_twice: Jobs or stages that began in a process while another still ran them.
        longest_overlap: For how many seconds it still did, at most.
        records_refused: Records of processes that owned the job no longer, which the engine refused.
        broken_off_share: Seconds of broken-off steps, of all seconds that steps ran.
        queue_seconds: From acceptance to the first step.
        queue_seconds_of_flood: The same, of the tenant that sends much at once.
        queue_seconds_of_largest: The same, of the tenant with the most jobs, which asks for more than an equal share.
        queue_seconds_of_small: The same, of the half of the tenants that send the fewest.
        unfair_turns: Turns of a tenant although another that waited had fewer running jobs.
        fairness: Jain's index of running jobs among the tenants that wait, mean over the moments with two or more of them.
        gpu_busy: Share of the time in which the GPUs of a type ran stages, to the last submission.
        gpu_idle_while_waiting: Share of the moments at which a GPU was free though a stage waited for its type.
        cpu_busy: Share of the cpu workers that had a job, mean to the last submission.
        gpu_minutes: That a job had a GPU.
        cpu_minutes: That a job had a cpu worker.
        failures: How often each kind happened.
        refused: Submissions refused, and sent again, by why.
        handing_over_ms: Real time that choosing the next job took on the machine of the simulation.
    """

    jobs: int
    not_ended: int
    steps: int
    steps_broken_off: int
    finished_again: int
    held_twice: int
    longest_overlap: float
    records_refused: int
    broken_off_share: float
    queue_seconds: Spread
    queue_seconds_of_flood: Spread
    queue_seconds_of_largest: Spread
    queue_seconds_of_small: Spread
    unfair_turns: int
    fairness: float
    gpu_busy: dict[str, float]
    gpu_idle_while_waiting: float
    cpu_busy: float
    gpu_minutes: Spread
    cpu_minutes: Spread
    failures: dict[str, int]
    refused: dict[str, int]
    handing_over_ms: Spread


def figures(outcome: Outcome) -> Figures:
    """Return the figures of a simulation."""
    journal, deployment = outcome.journal, outcome.deployment
    times = list(journal.jobs.values())
    flood = tenant_name(min(1, deployment.tenants - 1))
    small = {tenant_name(rank) for rank in range(deployment.tenants // 2, deployment.tenants)}
    samples = [sample for sample in journal.samples if sample.at <= outcome.span]
    computed = sum(step.seconds for job in outcome.jobs for step in job.steps)
    idle = [
        sample.waiting_stages[gpu] > 0 and sample.busy_gpus[gpu] < count for sample in samples for gpu, count in deployment.gpus.items()
    ]
    fair = [sample.fairness for sample in samples if sample.fairness is not None]
    return Figures(
        jobs=len(outcome.jobs),
        not_ended=len(outcome.jobs) - outcome.states.get("succeeded", 0),
        steps=journal.counts["steps finished"],
        steps_broken_off=journal.counts["steps broken off"],
        finished_again=journal.finished_again,
        held_twice=journal.held_twice,
        longest_overlap=round(journal.longest_overlap, 3),
        records_refused=journal.counts["records refused"],
        broken_off_share=round(journal.lost_seconds / (computed + journal.lost_seconds), 5),
        queue_seconds=spread(_waits(times)),
        queue_seconds_of_flood=spread(_waits([one for one in times if one.job.tenant == flood])),
        queue_seconds_of_largest=spread(_waits([one for one in times if one.job.tenant == tenant_name(0)])),
        queue_seconds_of_small=spread(_waits([one for one in times if one.job.tenant in small])),
        unfair_turns=journal.unfair_turns,
        fairness=round(float(np.mean(fair)), 4) if fair else 1.0,
        gpu_busy={
            gpu: round(float(np.mean([sample.busy_gpus[gpu] for sample in samples])) / count, 4) for gpu, count in deployment.gpus.items()
        },
        gpu_idle_while_waiting=round(float(np.mean(idle)), 4),
        cpu_busy=round(1 - float(np.mean([sample.free_cpu for sample in samples])) / deployment.cpu_workers, 4),
        gpu_minutes=spread([one.gpu_seconds / 60 for one in times]),
        cpu_minutes=spread([one.cpu_seconds / 60 for one in times]),
        failures={kind.value: journal.counts[kind.value] for kind in Kind},
        refused={
            name.partition(": ")[2]: count for name, count in sorted(journal.counts.items()) if name.startswith("submissions refused")
        },
        handing_over_ms=spread(journal.handing_over_ms),
    )


def spread(values: Sequence[float]) -> Spread:
    """Return the quantiles of some numbers."""
    if not values:
        return Spread(0.0, 0.0, 0.0, 0.0)
    found = np.asarray(values)
    return Spread(*(round(float(value), 2) for value in (np.median(found), np.quantile(found, 0.95), found.max(), found.mean())))


def _waits(times: Sequence[JobTimes]) -> list[float]:
    return [one.begun - one.accepted for one in times if one.begun is not None]
