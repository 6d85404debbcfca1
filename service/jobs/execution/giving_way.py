"""When work on the worker of a GPU that nobody waits for gives way: to any stage that somebody waits for and that finds no idle worker.

Such work is what is prepared before it is asked for, and parts of stages that other workers could measure too. It is in the queue of the
type of GPU, behind all stages; a worker does one thing at a time, so that no such work runs where an engine is built or timed.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from dbos import DBOS, WorkflowStatus

from service.database.advisory_locks import is_lock_held
from service.database.members import Members
from service.errors import StorageError
from service.jobs.execution.gpu_stage import aside
from service.jobs.execution.placement import gpu_queue
from service.jobs.faults.endings import Tenure
from service.jobs.records import JobState
from service.jobs.resources import Deps

PREPARE = "prepare_stage"  # names of the workflows that give way
PART = "stage_part"
PART_PRIORITY, PREPARE_PRIORITY = 500, 1000  # in the queue; stages that somebody waits for have none, which is before all


class GivingWay:
    """Whether a workflow that gives way is to go on. Asked by one thread."""

    def __init__(self, deps: Deps, job_id: str, own_id: str, tenure: Tenure) -> None:
        """Ask nothing yet.

        Args:
            deps: The belongings of a worker that has a GPU.
            job_id: The job.
            own_id: Of the workflow.
            tenure: How long this process may run it.
        """
        assert deps.membership is not None
        assert deps.membership.member.gpu is not None
        self._deps, self._job_id, self._own_id, self._tenure = deps, job_id, own_id, tenure
        self._members, self._queue = deps.membership.members, gpu_queue(deps.membership.member.gpu)
        self._asked_at = 0.0
        self._waits_since: float | None = None  # that a stage waits for a worker

    def is_over(self) -> bool:
        """Return whether it is to be given up: often asked, and cheap."""
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
        waiting = [one for one in begun if one.status == "ENQUEUED" and one.name not in _YIELDING]
        if not waiting:
            self._waits_since = None
            return False
        self._waits_since = self._waits_since if self._waits_since is not None else now
        missing = len(waiting) - idle_workers(self._members, self._queue, begun, own.app_version)
        if missing <= 0 and now - self._waits_since < _PATIENT_SECONDS:
            return False  # an idle worker is about to take it
        if is_lock_held(self._deps.store.engine, wanted_lock(self._own_id)):
            return False
        if own.status != "PENDING":  # it was taken over: this process is taken for dead, and will hear of it
            return True
        first_to_go = sorted((one for one in begun if one.name in _YIELDING and one.status == "PENDING"), key=_order, reverse=True)
        place = [one.workflow_id for one in first_to_go].index(self._own_id)
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


def _order(one: WorkflowStatus) -> tuple[bool, int, str]:
    """Return the place among what gives way, the last one first: what may not be asked for before what surely is, the youngest first."""
    return one.name == PREPARE, one.created_at or 0, one.workflow_id


_YIELDING = frozenset({PREPARE, PART})
_ASK_SECONDS = 0.25
_PATIENT_SECONDS = 2.0  # a worker that should be idle and takes nothing for so long does not count
