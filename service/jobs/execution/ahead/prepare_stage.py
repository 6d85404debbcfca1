"""A part of a trial that may be asked for, done on a GPU that is idle: a workflow in the queue of its type, behind all others.

It is given up when nobody wants it, when the job ends, and when a stage that somebody waits for finds no idle worker. What the search has
asked for by now is not given up: whoever waits for it holds a lock by its name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy as sa
from dbos import DBOS

from engine_builder.errors import StageCancelledError
from engine_builder.workspace.workspace import file_refs
from service.errors import RemovedError, StorageError
from service.jobs.execution.giving_way import GivingWay
from service.jobs.execution.gpu_stage import CANCELLED
from service.jobs.execution.job_run import JobRun
from service.jobs.faults.active_jobs import ActiveJobs
from service.jobs.faults.endings import JobCancelled, ServerStopping, Tenure, end_of, why_ended
from service.jobs.faults.waiting import Patience
from service.jobs.records import JobState
from service.jobs.resources import Deps

logger = logging.getLogger(__name__)

PrepareStage = Callable[[str, str, dict[str, object]], dict[str, object]]


def make_prepare_stage(deps: Deps, active: ActiveJobs) -> PrepareStage:
    """Return the workflow: from a job's id, the stage and its request to its answer, or that it was given up."""

    def prepare_stage(job_id: str, stage: str, request: dict[str, object]) -> dict[str, object]:
        own_id = str(DBOS.workflow_id)
        with active.with_job(own_id):
            tenure = Tenure(deps)
            patience = Patience(deps, job_id, lambda: why_ended(deps, job_id, tenure))
            try:
                job = patience.run(lambda: deps.store.get(job_id))
                if job.state is not JobState.RUNNING:
                    return {CANCELLED: True}
                need = GivingWay(deps, job_id, own_id, tenure)
                deps.folders.begin(job_id)
                deps.folders.ready(job_id, file_refs(request))
                answer = JobRun(deps, job, patience, tenure).beside_in_child(stage, request, need.is_over, is_charged=False)
                if tenure.is_over():
                    raise ServerStopping
                made = file_refs(answer)  # which the trial may read on another worker
                patience.run(lambda: deps.folders.made(job_id, made, with_log=False))
                return _given_up(deps, job_id, tenure) if end_of(deps, job_id) in _FINISHED else answer
            except (JobCancelled, RemovedError, StageCancelledError):
                return _given_up(deps, job_id, tenure)
            except (OSError, StorageError) as error:
                # Where the folder is gone, the job has ended. Whatever else it is, the trial itself will meet it.
                logger.info("job %s: nothing is prepared: %s", job_id, error)
                return _given_up(deps, job_id, tenure)
            except sa.exc.DBAPIError as error:  # of the engine: the dispatcher finds that nobody runs this
                raise ServerStopping from error

    return prepare_stage


def _given_up(deps: Deps, job_id: str, tenure: Tenure) -> dict[str, object]:
    if tenure.is_over():
        raise ServerStopping
    with suppress(StorageError):
        if end_of(deps, job_id) in _FINISHED:  # its folder may have been written to since it was removed
            deps.folders.remove(job_id)
    return {CANCELLED: True}


_FINISHED = {state.value for state in JobState if state.is_finished} | {"removed"}
