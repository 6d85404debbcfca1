"""One run of a job, or of one of its GPU stages, in a simulated process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.deployment.journal import Span
from benchmarks.deployment.processes import Process
from benchmarks.deployment.workload import Submission
from service.jobs.faults.endings import Tenure


@dataclass(slots=True, eq=False)
class Run:
    """What a process runs from a claim on, until it has ended or the process has to leave it.

    Attributes:
        process: Who runs it.
        workflow_id: Of the job, or of its GPU stage.
        job: The job.
        token: By which the engine knows that the process owns the workflow.
        tenure: How long the process may run it.
        number: Of the step that comes next, or that runs.
        queue: Where the job's GPU stages go.
        recorded: Numbers of the steps that an earlier run recorded.
        span: The step that runs now.
        held_up: What goes on once the process can reach the database again.
    """

    process: Process
    workflow_id: str
    job: Submission
    token: str
    tenure: Tenure
    begun: float
    number: int = 0
    queue: str = ""
    is_stage: bool = False
    recorded: frozenset[int] = field(default_factory=frozenset)
    span: Span | None = None
    is_over: bool = False
    held_up: Callable[[], None] | None = None
