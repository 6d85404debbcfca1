"""What a job has prepared on idle GPUs of its type before its search asks for it, as the worker sees it that has the job.

A preparation is a workflow of its own, under a name made of the job and of what the request names by content. A trial takes it only where
it asks for the same content, and then differs in nothing but its times. All else is the search's as if there were no other GPU: what is
late, lost or failed is built by the trial itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID, WorkflowStatus

from calibration.codec import as_object
from engine_builder.pipeline.ahead.preparing import EarlyPart, Preparation
from service.database.advisory_locks import held_lock
from service.errors import StorageError
from service.jobs.execution.ahead.prepare_stage import PrepareStage
from service.jobs.execution.giving_way import PREPARE_PRIORITY, idle_workers, queued, wanted_lock
from service.jobs.execution.gpu_stage import CANCELLED, aside
from service.jobs.resources import Deps

logger = logging.getLogger(__name__)

Json = Mapping[str, object]
Requests = Callable[[], Iterator[Json]]


class TrialsAhead:
    """The preparations of one job. Used on the thread of the job."""

    def __init__(self, deps: Deps, job_id: str, queue: str, prepare: PrepareStage) -> None:
        """Find again what an earlier run of the job gave out.

        Args:
            deps: The server's belongings, with those of processes that share a database.
            job_id: The job.
            queue: Of its type of GPU.
            prepare: The workflow.
        """
        assert deps.membership is not None
        self._members, self._engine = deps.membership.members, deps.store.engine
        self._preparations: Mapping[str, Preparation] = deps.pipeline.preparations
        self._version, self._most = deps.pipeline.version, deps.settings.trials_ahead
        self._job_id, self._queue, self._prepare = job_id, queue, prepare
        self._requests: Requests | None = None  # what finds out what may be asked for; None: it was asked
        self._likely: dict[str, EarlyPart] = {}  # by content, in order
        self._asked: EarlyPart | None = None  # what the search waits for, or uses
        self._is_taken = False  # whether there was something, and it is in use
        self._job_folders = deps.folders
        self._failed: set[str] = set()  # what cannot be prepared: the trial itself will say why
        self._folders: dict[str, str] = {}  # of what was asked for or may be, by content
        self._looked_at = 0.0

    def foreseen(self, requests: Requests) -> None:
        """Take in what may be asked for from now on; found out when there is time."""
        self._requests = requests

    def tend(self) -> None:
        """Begin what may be asked for, as far as workers are idle, and give up what may not be any more. Often called; cheap."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            self._tend()
        except Exception as error:  # the search goes on without; what was not done now is done at the next look
            logger.warning("job %s: nothing is prepared ahead for now: %s", self._job_id, error, exc_info=error)

    def taken(self, stage: str, request: Json, check: Callable[[], None]) -> Json | None:
        """Return the request of a stage with what was prepared for it; None where nothing was.

        Waits for what a living worker is at: it began before a worker could now. What is taken is kept until ``used``.

        Args:
            stage: Its name.
            request: What it reads.
            check: Raises where the job is to end.
        """
        preparation = self._preparations.get(stage)
        part = None if preparation is None else preparation.part(request)
        if preparation is None or part is None:
            return None
        self._asked = part
        self._folders[part.key] = part.folder
        result = self._result(part, check)
        self._is_taken = result is not None
        return None if result is None else preparation.joined(request, result)

    def used(self) -> None:
        """Remove what was taken, and its files: what the trial needs of them has names of its own by now."""
        if self._asked is not None and self._is_taken:
            self._remove(self._asked.key)
        self._asked, self._is_taken = None, False

    def _result(self, part: EarlyPart, check: Callable[[], None]) -> object | None:
        """Return what a preparation gave, once it has; None where there is none, or it gave nothing."""
        own_id = self._id(part.key)
        found = _status(own_id)
        if found is not None and found.status == "PENDING":
            with held_lock(self._engine, wanted_lock(own_id)):
                while (found := _status(own_id)) is not None and found.status == "PENDING":
                    check()
                    self.tend()
                    time.sleep(_ASK_SECONDS)
        if found is not None and found.status == "SUCCESS":
            answer = _answer(own_id)
            if answer is not None:
                return answer["result"]
        if found is not None:
            self._remove(part.key)
        return None

    def _tend(self) -> None:
        if self._requests is not None:
            self._likely, self._requests = self._parts(self._requests), None
        asked = None if self._asked is None else self._asked.key
        given = [key for key in self._given() if key != asked]
        wanted = [key for key in self._likely if key not in given and key not in self._failed and key != asked]
        begun = queued(self._queue)
        room = idle_workers(self._members, self._queue, begun, self._version) - sum(one.status == "ENQUEUED" for one in begun)
        for key in wanted[: max(room, 0)]:
            if len(given) >= self._most:
                unlikely = [other for other in given if other not in self._likely]
                if not unlikely:
                    return
                self._remove(unlikely[0])
                given.remove(unlikely[0])
            self._begin(self._likely[key])
            given.append(key)

    def _given(self) -> list[str]:
        """Return what is prepared, or is about to be, oldest first, after removing what is no longer of use."""
        found = []
        for one in sorted(_listed(self._prefix), key=lambda one: one.created_at or 0):
            key = one.workflow_id.removeprefix(self._prefix)
            if one.status == "SUCCESS":
                is_of_use = _answer(one.workflow_id) is not None
            elif one.status in _UNDECIDED:
                is_of_use = key in self._likely or (self._asked is not None and key == self._asked.key)
            else:
                self._failed.add(key)
                is_of_use = False
            if is_of_use:
                found.append(key)
            else:
                self._remove(key)
        return found

    def _parts(self, requests: Requests) -> dict[str, EarlyPart]:
        (preparation,) = self._preparations.values()
        found: dict[str, EarlyPart] = {}
        for part in map(preparation.part, requests()):  # each takes time to find out
            if part is not None:
                found[part.key] = part
                self._folders[part.key] = part.folder
            if len(found) == self._most:
                break
        return found

    def _begin(self, part: EarlyPart) -> None:
        def enqueue() -> None:
            with SetWorkflowID(self._id(part.key)), SetEnqueueOptions(priority=PREPARE_PRIORITY):
                DBOS.enqueue_workflow(self._queue, self._prepare, self._job_id, part.stage, dict(part.request))

        logger.info("job %s: %s %s, should it be asked for", self._job_id, part.stage, part.key[:12])
        aside(enqueue)

    def _remove(self, key: str) -> None:
        _remove(self._id(key))
        if (folder := self._folders.pop(key, None)) is not None:
            with suppress(OSError, StorageError):  # then it goes with the job
                self._job_folders.drop(self._job_id, folder)

    @property
    def _prefix(self) -> str:
        return ahead_prefix(self._job_id)

    def _id(self, key: str) -> str:
        return self._prefix + key


def ahead_prefix(job_id: str) -> str:
    """Return how the ids of a job's preparations begin."""
    return f"{job_id}:ahead:"


def end_ahead(job_id: str) -> None:
    """Take back what a job has prepared that nobody used: it has ended. Workers that are at it find out by themselves."""
    for one in _listed(ahead_prefix(job_id)):
        _remove(one.workflow_id)


def _listed(prefix: str) -> list[WorkflowStatus]:
    return aside(lambda: DBOS.list_workflows(workflow_id_prefix=prefix, load_input=False, load_output=False))


def _status(workflow_id: str) -> WorkflowStatus | None:
    return aside(lambda: DBOS.get_workflow_status(workflow_id))


def _answer(workflow_id: str) -> Json | None:
    """Return what a preparation gave that has ended well; None where it was given up, or another process has removed it just now."""
    found = aside(lambda: DBOS.list_workflows(workflow_ids=[workflow_id], status="SUCCESS", load_input=False))
    answer = as_object(found[0].output) if found else {CANCELLED: True}
    return None if CANCELLED in answer else answer


def _remove(workflow_id: str) -> None:
    aside(lambda: DBOS.cancel_workflow(workflow_id))
    aside(lambda: DBOS.delete_workflow(workflow_id))


_UNDECIDED = {"ENQUEUED", "PENDING", "DELAYED"}
_LOOK_SECONDS = 1.0
_ASK_SECONDS = 0.2
