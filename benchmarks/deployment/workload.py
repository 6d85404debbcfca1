"""What is asked of a simulated deployment: its processes, its tenants, and the jobs that they submit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from benchmarks.deployment.recorded import RecordedJob, Step

GPUS: Mapping[str, int] = MappingProxyType({"L4": 80, "A10": 60, "RTX 4090": 40, "H100": 20})


@dataclass(frozen=True, slots=True)
class Deployment:
    """The processes of a deployment, and who uses it.

    Attributes:
        gpus: How many workers each type of GPU has.
        cpu_workers: Processes that run jobs; each has one at a time.
        tenants: Whoever submits jobs.
        load: Seconds of work that come in a second, in shares of what the cpu workers can do.
        running_jobs: At most so many jobs of a tenant run at a time; None: any number.
        limited_jobs: Every tenth tenant may have at most so many jobs queued and running.
    """

    gpus: Mapping[str, int] = field(default_factory=lambda: GPUS)
    cpu_workers: int = 400
    tenants: int = 30
    load: float = 0.95
    running_jobs: int | None = None
    limited_jobs: int = 10

    def scaled(self, share: float) -> Deployment:
        """Return one with a share of the workers, at least one of each kind, and the same tenants."""
        gpus = {gpu: max(1, round(count * share)) for gpu, count in self.gpus.items()}
        return replace(self, gpus=gpus, cpu_workers=max(1, round(self.cpu_workers * share)))


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as its tenant submits it.

    Attributes:
        job_id: Its id.
        at: When it is submitted, seconds from the start.
        tenant: Whose it is.
        gpu: Type of GPU that it is for.
        priority: Among the jobs of its tenant.
        network: The recorded job that it is like.
        steps: Its steps.
    """

    job_id: str
    at: float
    tenant: str
    gpu: str
    priority: int
    network: str
    steps: tuple[Step, ...]

    def seconds(self, *, on_gpu: bool) -> float:
        """Return how long its steps of one kind take together."""
        return sum(step.seconds for step in self.steps if step.on_gpu is on_gpu)


def submissions(count: int, deployment: Deployment, recorded: Sequence[RecordedJob], rng: np.random.Generator) -> tuple[Submission, ...]:
    """Return the jobs, in the order of their submission.

    They come at random (a Poisson process), a tenant's share of them falling with its rank as 1 / rank^0.8. The second tenant sends half of
    its jobs at once, a third into the time: the others are not to suffer from it. Every job is like a recorded one, drawn at random, longer
    or shorter by a factor of its own (log-normal, sigma 0.3). Types of GPU are drawn by how many there are.

    Args:
        count: How many jobs.
        deployment: What they are sent to.
        recorded: What they are like.
        rng: Draws all of it.
    """
    weights = np.arange(1, deployment.tenants + 1) ** -0.8
    owners = rng.choice(deployment.tenants, size=count, p=weights / weights.sum())
    types = list(deployment.gpus)
    type_weights = np.array([deployment.gpus[name] for name in types], dtype=np.float64)
    wanted = rng.choice(len(types), size=count, p=type_weights / type_weights.sum())
    likes = rng.integers(len(recorded), size=count)
    factors = rng.lognormal(0.0, 0.3, size=count)
    priorities = rng.choice([0, 5, -5], size=count, p=[0.8, 0.1, 0.1])
    work = sum(factor * sum(step.seconds for step in recorded[like].steps) for factor, like in zip(factors, likes, strict=True))
    span = float(work) / (deployment.cpu_workers * deployment.load)
    moments = rng.uniform(0.0, span, size=count)
    flood = np.flatnonzero(owners == min(1, deployment.tenants - 1))[::2]
    moments[flood] = span / 3
    order = np.argsort(moments, kind="stable")
    return tuple(
        Submission(
            job_id=f"job-{number:05d}",
            at=float(moments[index]),
            tenant=tenant_name(int(owners[index])),
            gpu=types[wanted[index]],
            priority=int(priorities[index]),
            network=recorded[likes[index]].network,
            steps=tuple(Step(step.stage, step.seconds * float(factors[index])) for step in recorded[likes[index]].steps),
        )
        for number, index in enumerate(order)
    )


def tenant_name(index: int) -> str:
    """Return the name of a tenant by its rank, from 0."""
    return f"tenant-{index + 1:02d}"
