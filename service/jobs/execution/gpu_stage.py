"""A stage of a job that runs in another process, the worker of a GPU: a workflow of its own in the queue of that type of GPU."""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from dbos import DBOS, WorkflowHandle

from calibration.codec import as_object
from engine_builder.workspace.workspace import file_refs
from service.errors import DamagedArtifactError, NotFoundError, RemovedError
from service.jobs.execution.job_run import JobRun
from service.jobs.faults.active_jobs import ActiveJobs
from service.jobs.faults.endings import JobCancelled, ServerStopping, Tenure, why_ended
from service.jobs.faults.waiting import Patience
from service.jobs.resources import Deps

logger = logging.getLogger(__name__)

T = TypeVar("T")
CANCELLED = "__cancelled__"  # key of an answer that is none: the stage was ended
GpuStage = Callable[[str, str, str, dict[str, object], list[float]], dict[str, object]]


def make_gpu_stage(deps: Deps, active: ActiveJobs) -> GpuStage:
    """Return the workflow: from a job's id, the step's name, the stage, its request and its span of the progress to its result."""

    def gpu_stage(job_id: str, name: str, stage: str, request: dict[str, object], span: list[float]) -> dict[str, object]:
        with active.with_job(str(DBOS.workflow_id)):
            tenure = Tenure(deps)
            patience = Patience(deps, job_id, lambda: why_ended(deps, job_id, tenure))
            try:
                job = patience.run(lambda: deps.store.get(job_id))
                patience.run(lambda: deps.folders.begin(job_id))
                run = JobRun(deps, job, patience, tenure)
                readable = patience.run(lambda: _readable(deps, run, job_id, name, stage, request))
                return run.run_stage(name, stage, readable, (span[0], span[1]))
            except (JobCancelled, RemovedError):
                return {CANCELLED: True}
            except sa.exc.DBAPIError as error:  # of the engine: the dispatcher finds that nobody runs this
                raise ServerStopping from error

    return gpu_stage


def _readable(deps: Deps, run: JobRun, job_id: str, name: str, stage: str, request: dict[str, object]) -> dict[str, object]:
    """Return the request with what was done for it before; without, where the object store lost or damaged that: then it is done now."""
    preparation = deps.pipeline.preparations.get(stage)
    if preparation is None or (whole := dict(preparation.without(request))) == request:
        return request
    try:
        deps.folders.ready(job_id, file_refs(request))
    except (DamagedArtifactError, NotFoundError) as error:
        logger.warning("job %s: %s: what was built ahead is not used: %s", job_id, name, error.detail)
        run.say(f"{name}: what was built ahead is lost or damaged, and is built again")
        return whole
    return request


def run_elsewhere(
    enqueue: Callable[[], WorkflowHandle[dict[str, object]]],
    should_end: Callable[[], bool],
    why_ended: Callable[[], BaseException],
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, object]:
    """Run a stage in the queue of a GPU, and return its result. Called on the workflow's own thread.

    Args:
        enqueue: Puts it there as a child of this workflow.
        should_end: Asked while it waits and runs.
        why_ended: What is raised then.
        meanwhile: Called again and again while it waits.

    Raises:
        OptimizerError: What the stage raised, with its fields.
    """
    handle = enqueue()
    child = handle.workflow_id
    while (status := aside(lambda: DBOS.get_workflow_status(child))) is None or status.status in _UNDECIDED:
        if should_end():
            reason = why_ended()
            if isinstance(reason, JobCancelled):
                aside(lambda: DBOS.cancel_workflow(child))  # it may wait still; one that runs finds out by itself
            raise reason
        meanwhile()
        time.sleep(_ASK_SECONDS)
    result = as_object(handle.get_result())
    if result.get(CANCELLED):
        raise JobCancelled
    return dict(result)


def aside(question: Callable[[], T]) -> T:
    """Ask without that becoming a recorded step of the workflow."""
    return contextvars.Context().run(question)


_UNDECIDED = {"ENQUEUED", "PENDING", "DELAYED"}
_ASK_SECONDS = 0.2
