"""Parts of a stage that idle workers measure beside the worker that has the job.

The whole is one step of the job's workflow: a part is a workflow of its own, under a name that a later run of the step finds again, so that
what was measured before a crash is not measured twice. The worker of the job measures parts, too, from the first on, and takes back those
that nobody has begun when it has none left. A part whose worker dies goes to another one like any workflow; one that fails is measured once
more by the worker of the job, and that counts.

Cpu workers find parts in the queue of jobs, workers of a GPU in that of its type, behind all that needs a GPU. A part that comes back from
there without a result is for cpu workers only.
"""

from __future__ import annotations

import contextvars
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID, WorkflowStatus

from calibration.codec import as_object
from engine_builder.pipeline.parts import MeasuredPart, Split
from service.database.members import Members
from service.jobs.execution.giving_way import PART_PRIORITY
from service.jobs.execution.gpu_stage import CANCELLED
from service.jobs.execution.placement import gpu_queue
from service.jobs.execution.stage_part import StagePart

logger = logging.getLogger(__name__)

T = TypeVar("T")
Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Queue:
    """Where other workers find parts."""

    name: str
    helpers: int  # its workers that are idle or measure parts of this stage
    waiting: int  # what else waits for them


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
    ) -> tuple[MeasuredPart, ...] | None:
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
        helpers = sum(queue.helpers for queue in self._queues(prefix))
        most = _earlier_count(prefix) or PARTS_EACH * (helpers + 1)
        parts = split.parts(request, most)
        if len(parts) == 1 or (not helpers and not _earlier_count(prefix)):
            return None
        logger.info("job %s: %s in %s parts, with %s more workers", job_id, name, len(parts), helpers)
        ids = [f"{prefix}{index}of{len(parts)}" for index in range(len(parts))]
        done: dict[int, MeasuredPart] = {}
        out = {ids.index(one.workflow_id): one.queue_name or self._queue for one in _listed(prefix=prefix)}  # and where it is
        todo = deque(index for index in range(len(parts)) if index not in out)
        for_cpus: set[int] = set()
        while len(done) < len(parts):
            check()
            for index, part in self._ended(ids, out).items():
                if part is None:
                    if out[index] != self._queue:
                        for_cpus.add(index)
                    todo.append(index)
                else:
                    done[index] = part
                del out[index]
            if len(todo) > 1:
                self._give_out(
                    prefix, todo, out, for_cpus, lambda index, queue: self._enqueue(ids[index], queue, job_id, stage, parts[index])
                )
            if todo:
                index, before = todo.popleft(), len(done)
                answer = here(parts[index], lambda fraction, before=before: on_progress((before + fraction) / len(parts)))  # type: ignore[misc]
                done[index] = MeasuredPart(answer["result"], self._own_name, _KIND)
            elif len(done) < len(parts):
                taken = self._taken_back(ids, list(out))
                if taken is None:
                    time.sleep(_ASK_SECONDS)
                else:
                    del out[taken]
                    todo.append(taken)
            on_progress(len(done) / len(parts))
        forget_parts(prefix)
        return tuple(done[index] for index in range(len(parts)))

    def _give_out(
        self, prefix: str, todo: deque[int], out: dict[int, str], for_cpus: set[int], enqueue: Callable[[int, str], None]
    ) -> None:
        """Give parts to whoever has room, in turns, and keep one: each worker that helps, or could, has one to measure, and others wait."""
        room = {}
        for queue in self._queues(prefix):
            most = (OUT_EACH if queue.name == self._queue else OUT_EACH_GPU) * queue.helpers
            room[queue.name] = most - queue.waiting - list(out.values()).count(queue.name)
        while any(left > 0 for left in room.values()):
            for name in [name for name, left in room.items() if left > 0]:
                index = next((one for one in reversed(todo) if name == self._queue or one not in for_cpus), None)
                if index is None or len(todo) < 2:
                    room[name] = 0
                    continue
                todo.remove(index)
                enqueue(index, name)
                out[index] = name
                room[name] -= 1

    def _enqueue(self, part_id: str, queue: str, job_id: str, stage: str, request: Json) -> None:
        def enqueue() -> None:
            priority = None if queue == self._queue else PART_PRIORITY
            with SetWorkflowID(part_id), SetEnqueueOptions(priority=priority):
                DBOS.enqueue_workflow(queue, self._part, job_id, stage, dict(request))

        _aside(enqueue)

    def _ended(self, ids: Sequence[str], out: Mapping[int, str]) -> dict[int, MeasuredPart | None]:
        """Return what parts gave that have ended, None of one that is to be measured again."""
        if not out:
            return {}
        found = _aside(lambda: DBOS.list_workflows(workflow_ids=[ids[index] for index in out], load_input=False))
        ended: dict[int, MeasuredPart | None] = {}
        for one in found:
            index = ids.index(one.workflow_id)
            if one.status == "SUCCESS":
                answer = as_object(one.output)
                kind = _KIND if out[index] == self._queue else f"worker of {out[index].removeprefix(gpu_queue(''))}"
                ended[index] = None if answer.get(CANCELLED) else MeasuredPart(answer["result"], one.executor_id or "", kind)
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

    def _queues(self, prefix: str) -> tuple[_Queue, ...]:
        """Return where parts may be given out, those of GPUs first: probes are quick there. One question, whatever their number."""
        alive = [one for one in self._members.alive() if one.version == self._version and one.name != self._own_name]
        workers: dict[str, set[str]] = {}
        for one in alive:
            if one.gpu is not None and one.probes is not None:
                workers.setdefault(gpu_queue(one.gpu), set()).add(one.name)
        workers[self._queue] = {one.name for one in alive if one.role.takes_jobs}
        begun = [one for one in _listed(status=["PENDING", "ENQUEUED"], queues=list(workers)) if not one.workflow_id.startswith(prefix)]
        busy = {one.executor_id for one in begun if one.status == "PENDING"}
        waiting = Counter(one.queue_name for one in begun if one.status == "ENQUEUED")
        return tuple(_Queue(name, len(those - busy), waiting[name]) for name, those in workers.items())


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
    *, ids: list[str] | None = None, prefix: str | None = None, status: list[str] | None = None, queues: list[str] | None = None
) -> list[WorkflowStatus]:
    """Return workflows without what they were given and gave."""
    return _aside(
        lambda: DBOS.list_workflows(
            workflow_ids=ids, workflow_id_prefix=prefix, status=status, queue_name=queues, load_input=False, load_output=False
        )
    )


def _aside(question: Callable[[], T]) -> T:
    """Ask the engine without that becoming a recorded step of the job's workflow."""
    return contextvars.Context().run(question)


PARTS_EACH = 2  # for each worker: of about equal size, so that no worker waits for another's last one for long
OUT_EACH, OUT_EACH_GPU = 2, 4  # of each worker: one that is measured, and others that wait; what nobody has begun is taken back
_ASK_SECONDS = 0.2
_UNDECIDED = {"ENQUEUED", "PENDING", "DELAYED"}
_KIND = "cpu worker"
_COUNT = re.compile(r"of(\d+)$")
