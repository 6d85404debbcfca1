"""What happened in a simulation, noted as it happens: who ran which step when, and whether what must hold did."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.deployment.workload import Submission


@dataclass(slots=True)
class JobTimes:
    """When a job was accepted, first begun and ended, seconds from the start; and the seconds that it kept processes busy."""

    job: Submission
    accepted: float
    begun: float | None = None
    ended: float | None = None
    gpu_seconds: float = 0.0  # steps that did not come to their end too
    cpu_seconds: float = 0.0  # that it had a cpu worker, waits for a GPU too


@dataclass(frozen=True, slots=True)
class Span:
    """One step that a process began."""

    job_id: str
    number: int
    process: str
    on_gpu: bool
    begun: float


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood at a moment."""

    at: float
    queued: int
    running: int
    free_cpu: int
    busy_gpus: Mapping[str, int]
    waiting_stages: Mapping[str, int]
    fairness: float | None  # Jain's index of the running jobs of tenants that wait; None where fewer than two do


class Journal:
    """Everything that the figures need."""

    def __init__(self) -> None:
        """Know of nothing yet."""
        self.jobs: dict[str, JobTimes] = {}
        self.samples: list[Sample] = []
        self.counts: Counter[str] = Counter()  # what happened how often
        self.lost_seconds = 0.0  # of steps that were ended before their end
        self.held_twice = 0  # a job or GPU stage that began in a process as another one still ran it
        self.longest_overlap = 0.0  # seconds for which two did
        self.finished_again = 0  # finished steps that began again
        self.unfair_turns = 0  # turns of a tenant, although another one that waited had fewer running jobs
        self.gpu_seconds: dict[str, float] = defaultdict(float)  # by type
        self.handing_over_ms: list[float] = []  # real time that the choice of a job took
        self._finished: set[tuple[str, int]] = set()
        self._holders: dict[str, dict[str, float]] = defaultdict(dict)

    def takes(self, workflow_id: str, process: str, now: float) -> None:
        """Note that a process runs a job or a GPU stage from now on."""
        if self._holders[workflow_id]:
            self.held_twice += 1
        self._holders[workflow_id][process] = now

    def leaves(self, workflow_id: str, process: str, now: float) -> None:
        """Note that it runs it no longer."""
        begun = self._holders[workflow_id].pop(process)
        for other in self._holders[workflow_id].values():
            self.longest_overlap = max(self.longest_overlap, now - max(begun, other))
        if not self._holders[workflow_id]:
            del self._holders[workflow_id]

    def begins(self, span: Span) -> None:
        """Note that a step begins."""
        self.counts["steps begun"] += 1
        if (span.job_id, span.number) in self._finished:
            self.finished_again += 1

    def ends(self, span: Span, now: float, gpu: str, *, is_finished: bool) -> None:
        """Note that a step ends: finished and recorded, or broken off; ``gpu`` is the type that the job is for."""
        seconds = now - span.begun
        if span.on_gpu:
            self.jobs[span.job_id].gpu_seconds += seconds
            self.gpu_seconds[gpu] += seconds
        if is_finished:
            self.counts["steps finished"] += 1
            self._finished.add((span.job_id, span.number))
        else:
            self.counts["steps broken off"] += 1
            self.lost_seconds += seconds

    def turn(self, tenant: str, waiting: Mapping[str, int], running: Mapping[str, int]) -> None:
        """Note whose turn it is, before the job counts as running; both maps are numbers of jobs by tenant."""
        self.counts["turns"] += 1
        fewest = min(running.get(other, 0) for other, count in waiting.items() if count)
        self.unfair_turns += running.get(tenant, 0) > fewest


def jain(values: list[float]) -> float:
    """Return Jain's index of fairness: (sum x)^2 / (n sum x^2), 1 where all have the same, 1/n where one has it all.

    Jain, Chiu and Hawe, "A quantitative measure of fairness and discrimination for resource allocation", DEC-TR-301, 1984.
    """
    squares = sum(value * value for value in values)
    return 1.0 if squares == 0 else sum(values) ** 2 / (len(values) * squares)
