"""A part of a trial that may be asked for, done on a GPU that is idle: a workflow in the queue of its type, behind all others.

It is given up when nobody wants it, when the job ends, and when a stage that somebody waits for finds no idle worker. What the search has
asked for by now is not given up: whoever waits for it holds a lock by its name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy as sa
from dbos import DBOS, WorkflowStatus

from engine_builder.errors import StageCancelledError
from engine_builder.workspace.workspace import file_refs
from service.database.advisory_locks import is_lock_held
from service.database.members import Members
from service.errors import RemovedError, StorageError
from service.jobs.execution.gpu_stage import CANCELLED, aside
from service.jobs.execution.job_run import JobRun
from service.jobs.execution.placement import gpu_queue
from service.jobs.faults.active_jobs import ActiveJobs
from service.jobs.faults.endings import JobCancelled, ServerStopping, Tenure, end_of, why_ended
from service.jobs.faults.waiting import Patience
from service.jobs.records import JobState
from service.jobs.resources import Deps

logger = logging.getLogger(__name__)

PrepareStage = Callable[[str, str, dict[str, object]], dict[str, object]]
PREPARE = "prepare_stage"  # name of the workflow


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
                need = _Need(deps, job_id, own_id, tenure)
                deps.folders.begin(job_id)
                deps.folders.ready(job_id, file_refs(request))
                return JobRun(deps, job, patience, tenure).ahead_in_child(stage, request, need.is_over)
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


class _Need:
    """Whether a preparation is to go on. Asked by one thread."""

    def __init__(self, deps: Deps, job_id: str, own_id: str, tenure: Tenure) -> None:
        assert deps.membership is not None
        assert deps.membership.member.gpu is not None
        self._deps, self._job_id, self._own_id, self._tenure = deps, job_id, own_id, tenure
        self._members, self._queue = deps.membership.members, gpu_queue(deps.membership.member.gpu)
        self._asked_at = 0.0
        self._waits_since: float | None = None  # that a stage waits for a worker

    def is_over(self) -> bool:
        """Return whether it is to be given up."""
        now = time.monotonic()
        if self._tenure.is_over():
            return True
        if now - self._asked_at < _ASK_SECONDS:
            return False
        self._asked_at = now
        try:
            return self._is_over(now)
        except (StorageError, sa.exc.SQLAlchemyError):  # asked again soon
            return False

    def _is_over(self, now: float) -> bool:
        if self._deps.store.state(self._job_id) is not JobState.RUNNING:
            return True
        begun = queued(self._queue)
        own = next((one for one in begun if one.workflow_id == self._own_id), None)
        if own is None:  # whoever gave it out has taken it back
            return True
        waiting = [one for one in begun if one.status == "ENQUEUED" and one.name != PREPARE]
        if not waiting:
            self._waits_since = None
            return False
        self._waits_since = self._waits_since if self._waits_since is not None else now
        missing = len(waiting) - idle_workers(self._members, self._queue, begun, own.app_version)
        if missing <= 0 and now - self._waits_since < _PATIENT_SECONDS:
            return False  # an idle worker is about to take it
        if is_lock_held(self._deps.store.engine, wanted_lock(self._own_id)):
            return False
        youngest_first = sorted((one for one in begun if one.name == PREPARE and one.status == "PENDING"), key=_age, reverse=True)
        place = [one.workflow_id for one in youngest_first].index(self._own_id)
        return place < missing or now - self._waits_since >= _PATIENT_SECONDS


def queued(queue: str) -> list[WorkflowStatus]:
    """Return what runs in a queue or waits there."""
    return aside(lambda: DBOS.list_workflows(status=["PENDING", "ENQUEUED"], queue_name=queue, load_input=False, load_output=False))


def idle_workers(members: Members, queue: str, begun: list[WorkflowStatus], version: str | None) -> int:
    """Return how many living workers of a type of GPU have nothing to do.

    Args:
        members: The processes of the database.
        queue: Of the type.
        begun: What ``queued`` returned.
        version: Of the pipeline: what was begun under it goes to workers of the same alone.
    """
    busy = {one.executor_id for one in begun if one.status == "PENDING"}
    alive = [one for one in members.alive() if one.gpu is not None and gpu_queue(one.gpu) == queue and one.version == version]
    return sum(one.name not in busy for one in alive)


def wanted_lock(workflow_id: str) -> str:
    """Return the name of the lock that whoever waits for a preparation holds."""
    return f"wanted:{workflow_id}"


def _age(one: WorkflowStatus) -> tuple[int, str]:
    return one.created_at or 0, one.workflow_id


_ASK_SECONDS = 0.25
_PATIENT_SECONDS = 2.0  # a worker that should be idle and takes nothing for so long does not count
_FINISHED = {state.value for state in JobState if state.is_finished} | {"removed"}
