"""Parts of a stage that idle cpu workers measure beside the worker that has the job.

The whole is one step of the job's workflow: a part is a workflow of its own, under a name that a later run of the step finds again, so that
what was measured before a crash is not measured twice. The worker of the job measures parts, too, from the first on, and takes back those
that nobody has begun when it has none left. A part whose worker dies goes to another one like any workflow; one that fails is measured once
more by the worker of the job, and that counts.
"""

from __future__ import annotations

import contextvars
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID, WorkflowStatus

from calibration.codec import as_object
from engine_builder.config.config import config_from_json
from engine_builder.pipeline.parts import Split
from service.database.members import Members
from service.errors import RemovedError
from service.jobs.execution.job_run import JobRun
from service.jobs.execution.placement import placed_on
from service.jobs.faults.active_jobs import ActiveJobs
from service.jobs.faults.endings import JobCancelled, ServerStopping, Tenure, why_ended
from service.jobs.faults.waiting import Patience
from service.jobs.records import JobState
from service.jobs.resources import Deps

logger = logging.getLogger(__name__)

T = TypeVar("T")
Json = Mapping[str, object]
StagePart = Callable[[str, str, dict[str, object]], dict[str, object]]
PART = "stage_part"  # name of the workflow


def make_stage_part(deps: Deps, active: ActiveJobs) -> StagePart:
    """Return the workflow: from a job's id, the stage and the request of a part to its result."""

    def stage_part(job_id: str, stage: str, request: dict[str, object]) -> dict[str, object]:
        with active.with_job(str(DBOS.workflow_id)):
            tenure = Tenure(deps)
            patience = Patience(deps, job_id, lambda: why_ended(deps, job_id, tenure))
            try:
                job = patience.run(lambda: deps.store.get(job_id))
                if job.state is not JobState.RUNNING:
                    return {_CANCELLED: True}
                assert deps.membership is not None
                is_placed = placed_on(config_from_json(dict(job.new.config)), deps.membership.members) is not None
                run = JobRun(deps, job, patience, tenure, may_open_gpu=not is_placed)
                return patience.run(lambda: run.part_in_child(stage, request, lambda fraction: None))
            except (JobCancelled, RemovedError):
                return {_CANCELLED: True}
            except sa.exc.DBAPIError as error:  # of the engine: the dispatcher finds that nobody runs this
                raise ServerStopping from error

    return stage_part


class FanOut:
    """Splits stages of the jobs that this worker has. Used on the thread of a job."""

    def __init__(self, members: Members, own_name: str, version: str, queue: str, part: StagePart) -> None:
        """Make one.

        Args:
            members: The processes of the database.
            own_name: Of this one.
            version: Of the pipeline: only workers of the same measure parts.
            queue: Which idle cpu workers serve.
            part: The workflow.
        """
        self._members, self._own_name, self._version = members, own_name, version
        self._queue, self._part = queue, part

    def run(
        self,
        job_id: str,
        name: str,
        stage: str,
        request: Json,
        split: Split,
        here: Callable[[Json, Callable[[float], None]], Json],
        on_progress: Callable[[float], None],
        check: Callable[[], None],
    ) -> tuple[object, ...] | None:
        """Return what the parts of a stage gave, in order; None where there is nobody to share them with, or one part only.

        Args:
            job_id: The job.
            name: Of the step.
            stage: The stage.
            request: What it reads.
            split: How it is split.
            here: Measures a part in this process, and tells its progress, 0..1.
            on_progress: Told that of all.
            check: Raises where the job is to end.

        Raises:
            OptimizerError: What a part raised, with its fields.
        """
        prefix = f"{job_id}:{name}:"
        helpers, _ = self._helpers(prefix)
        most = _earlier_count(prefix) or PARTS_EACH * (helpers + 1)
        parts = split.parts(request, most)
        if len(parts) == 1 or (not helpers and not _earlier_count(prefix)):
            return None
        logger.info("job %s: %s in %s parts, with %s more workers", job_id, name, len(parts), helpers)
        ids = [f"{prefix}{index}of{len(parts)}" for index in range(len(parts))]
        done: dict[int, object] = {}
        todo = deque(index for index in range(len(parts)))
        out = [ids.index(one.workflow_id) for one in _listed(prefix=prefix)]
        for index in out:
            todo.remove(index)
        while len(done) < len(parts):
            check()
            for index, result in self._ended(ids, [index for index in out if index not in done]).items():
                if result is None:
                    out.remove(index)
                    todo.append(index)
                else:
                    done[index] = result
            room = self._room(prefix, sum(index not in done for index in out))
            while room > 0 and len(todo) > 1:
                index = todo.pop()
                self._enqueue(ids[index], job_id, stage, parts[index])
                out.append(index)
                room -= 1
            if todo:
                index, before = todo.popleft(), len(done)
                answer = here(parts[index], lambda fraction, before=before: on_progress((before + fraction) / len(parts)))  # type: ignore[misc]
                done[index] = answer["result"]
            elif len(done) < len(parts):
                taken = self._taken_back(ids, [index for index in out if index not in done])
                if taken is None:
                    time.sleep(_ASK_SECONDS)
                else:
                    out.remove(taken)
                    todo.append(taken)
            on_progress(len(done) / len(parts))
        forget_parts(prefix)
        return tuple(done[index] for index in range(len(parts)))

    def _enqueue(self, part_id: str, job_id: str, stage: str, request: Json) -> None:
        def enqueue() -> None:
            with SetWorkflowID(part_id):
                DBOS.enqueue_workflow(self._queue, self._part, job_id, stage, dict(request))

        _aside(enqueue)

    def _ended(self, ids: Sequence[str], out: Sequence[int]) -> dict[int, object | None]:
        """Return what parts gave that have ended, None of one that is to be measured again."""
        if not out:
            return {}
        found = _aside(lambda: DBOS.list_workflows(workflow_ids=[ids[index] for index in out], load_input=False))
        ended: dict[int, object | None] = {}
        for one in found:
            index = ids.index(one.workflow_id)
            if one.status == "SUCCESS":
                answer = as_object(one.output)
                ended[index] = None if answer.get(_CANCELLED) else answer["result"]
            elif one.status not in _UNDECIDED:
                logger.warning("part %s: %s; it is measured again", one.workflow_id, one.error or one.status)
                ended[index] = None
        for index in set(out) - {ids.index(one.workflow_id) for one in found}:  # removed by whoever tidied up
            ended[index] = None
        for index in [index for index, result in ended.items() if result is None]:
            _aside(lambda index=index: DBOS.delete_workflow(ids[index]))  # type: ignore[misc]
        return ended

    def _taken_back(self, ids: Sequence[str], out: Sequence[int]) -> int | None:
        """Return a part that nobody has begun, which is no longer in the queue then; None where all are begun."""
        waiting = _listed(ids=[ids[index] for index in out], status=["ENQUEUED"])
        if not waiting:
            return None
        part_id = waiting[-1].workflow_id
        _aside(lambda: DBOS.cancel_workflow(part_id))
        _aside(lambda: DBOS.delete_workflow(part_id))  # should somebody have begun it just now, that counts for nothing
        return ids.index(part_id)

    def _room(self, prefix: str, out: int) -> int:
        """Return how many more parts may be given out: each worker that helps, or could, has one to measure and one that waits."""
        helpers, waiting = self._helpers(prefix)
        return WAITING_EACH * helpers - out - waiting

    def _helpers(self, prefix: str) -> tuple[int, int]:
        """Return how many other cpu workers are idle or measure parts of this stage, and how much else waits for idle ones."""
        begun = _listed(status=["PENDING", "ENQUEUED"], queue=self._queue)
        busy = {one.executor_id for one in begun if one.status == "PENDING" and not one.workflow_id.startswith(prefix)}
        alive = [one for one in self._members.alive() if one.role.takes_jobs and one.version == self._version]
        waiting = sum(one.status == "ENQUEUED" and not one.workflow_id.startswith(prefix) for one in begun)
        return sum(one.name not in busy and one.name != self._own_name for one in alive), waiting


def forget_parts(prefix: str) -> None:
    """Remove what the engine recorded of parts whose ids begin so: ``JOB:``, or ``JOB:STEP:``."""
    for one in _listed(prefix=prefix):
        _aside(lambda one=one: DBOS.delete_workflow(one.workflow_id))  # type: ignore[misc]


def _earlier_count(prefix: str) -> int:
    """Return in how many parts an earlier run of the step had split it; 0 where there was none."""
    found = _listed(prefix=prefix)
    match = _COUNT.search(found[0].workflow_id) if found else None
    return int(match[1]) if match else 0


def _listed(
    *, ids: list[str] | None = None, prefix: str | None = None, status: list[str] | None = None, queue: str | None = None
) -> list[WorkflowStatus]:
    """Return workflows without what they were given and gave."""
    return _aside(
        lambda: DBOS.list_workflows(
            workflow_ids=ids, workflow_id_prefix=prefix, status=status, queue_name=queue, load_input=False, load_output=False
        )
    )


def _aside(question: Callable[[], T]) -> T:
    """Ask the engine without that becoming a recorded step of the job's workflow."""
    return contextvars.Context().run(question)


PARTS_EACH = 2  # for each worker: of about equal size, so that no worker waits for another's last one for long
WAITING_EACH = 2  # one that is measured, and one that waits
_ASK_SECONDS = 0.2
_UNDECIDED = {"ENQUEUED", "PENDING", "DELAYED"}
_CANCELLED = "__cancelled__"
_COUNT = re.compile(r"of(\d+)$")
