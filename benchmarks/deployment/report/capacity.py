"""Small simulations without failures, from which the number of cpu workers is planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.deployment.deployment_run import simulate
from benchmarks.deployment.failures import Rates
from benchmarks.deployment.report.figures import figures
from benchmarks.deployment.workload import Deployment

RATIOS = (1, 2, 3)  # cpu workers for each GPU
LOADS = (0.8, 1.0)
_GPUS = {"L4": 4, "A10": 4}


@dataclass(frozen=True, slots=True)
class Plan:
    """What came of one size and load."""

    cpu_workers_per_gpu: int
    load: float
    gpu_busy: float
    median_queue_seconds: float
    p95_queue_seconds: float
    gpu_wait_share: float  # of the time that a job has a cpu worker: it waits for a GPU


def plans(jobs: int, seed: int) -> Iterator[Plan]:
    """Yield what comes of each size and load, with so many jobs each."""
    for ratio in RATIOS:
        for load in LOADS:
            deployment = Deployment(gpus=_GPUS, cpu_workers=ratio * sum(_GPUS.values()), tenants=3, load=load)
            outcome = simulate(jobs, seed, deployment, Rates(process_hours=float("inf"), database=0, store=0))
            found = figures(outcome)
            worked = sum(step.seconds for job in outcome.jobs for step in job.steps)
            held = sum(times.cpu_seconds for times in outcome.journal.jobs.values())
            yield Plan(
                ratio,
                load,
                round(sum(found.gpu_busy.values()) / len(_GPUS), 3),
                found.queue_seconds.median,
                found.queue_seconds.p95,
                round(max(0.0, 1 - worked / held), 3),
            )
