"""Makes the jobs table and the workflow engine agree: at start, whatever moment the last process ended in, and from then on.

The row is what counts. A new job is a row; the dispatcher hands it to the engine, now or, where the engine cannot take it, later.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from dbos import DBOS

from calibration.errors import OptimizerError
from engine_builder.workspace.tree_removal import remove_tree
from service.errors import InvalidRequestError, NotFoundError, RemovedError
from service.jobs.faults.job_note import damaged_inputs, find_note
from service.jobs.records import JobState
from service.jobs.resources import Deps
from service.jobs.storage.storage_errors import storage_error
from service.jobs.workflow import Workflows, resume

logger = logging.getLogger(__name__)


def reconcile(workflows: Workflows, deps: Deps) -> frozenset[str]:
    """Enqueue what was forgotten, start anew what an older version left, and remove folders that no job needs.

    The engine itself goes on with the jobs that it knows under our version. Here come the others:
    1. A job that the engine does not know (the process ended between the row and the enqueue) is enqueued.
    2. A job that another version of the pipeline began is enqueued anew: its recorded steps would not fit.
    3. A job that the engine gave up (it ended the whole server again and again) is failed.
    4. An unfinished job whose folder is gone (the database lost its last changes, or the disk its files) is failed.
    5. A folder with the note of a job that has no row (the database was lost) becomes a job again, and starts anew.
    6. Any other folder, of a finished job or of a request that never became a job, is removed.

    Args:
        workflows: The launched engine.
        deps: The server's belongings.

    Returns:
        The unfinished jobs, which the engine knows now.
    """
    _adopt_lost_jobs(deps)
    unfinished = deps.store.list(states=(JobState.QUEUED, JobState.RUNNING))
    ids = [job.id for job in unfinished]
    found_all = DBOS.list_workflows(workflow_ids=ids, load_input=False, load_output=False) if ids else []
    known = {found.workflow_id: found for found in found_all}
    for job in reversed(unfinished):  # oldest first
        found = known.get(job.id)
        if not deps.workspace(job.id).is_dir():  # case 4
            logger.error("job %s: its folder is gone", job.id)
            deps.store.fail(job.id, _lost("its folder is gone").problem(), {})
        elif found is None:  # case 1
            deps.store.restart_search(job.id)  # of a job from an earlier database
            workflows.enqueue(job.id)
        elif found.app_version != deps.pipeline.version:  # case 2
            logger.info("job %s: begun by version %s of the pipeline, starts anew", job.id, found.app_version)
            deps.store.restart_search(job.id)
            DBOS.delete_workflow(job.id)
            workflows.enqueue(job.id)
        elif found.status not in _ALIVE and not deps.store.state(job.id).is_finished:  # case 3; it may have ended since we asked
            deps.store.fail(job.id, _gave_up(found.status).problem(), {})
    for path in _folders(deps):
        if path.name not in set(ids):  # case 6
            remove_tree(path)
    return frozenset(ids)


def _adopt_lost_jobs(deps: Deps) -> None:
    """Write the rows of jobs that have a folder and no row: case 5."""
    for path in _folders(deps):
        note = find_note(path)
        try:
            deps.store.get(path.name)
        except RemovedError:
            continue
        except NotFoundError:
            if note is None:
                logger.info("folder jobs/%s: of a request that never became a job; it is removed", path.name)
                continue
            logger.error("job %s: the database has lost it; its folder is there", path.name)
            try:
                job, is_new = deps.store.create(note.new, created_at=note.created_at)
            except InvalidRequestError:  # its key was used anew
                job, is_new = deps.store.create(replace(note.new, idempotency_key=None), created_at=note.created_at)
            if not is_new:
                logger.error("job %s: job %s has taken its place", path.name, job.id)
            elif damaged := damaged_inputs(note, path):
                deps.store.fail(job.id, _lost(f"its {' and '.join(damaged)} are damaged").problem(), {})
            else:
                logger.warning("job %s: it starts anew", path.name)


def _folders(deps: Deps) -> tuple[Path, ...]:
    folder = deps.workspace("any").parent
    return tuple(sorted(folder.iterdir())) if folder.is_dir() else ()


class Dispatcher:
    """Hands new jobs to the engine, and looks now and then for jobs that nobody works on; a thread of its own.

    1. A row without a workflow is enqueued.
    2. A workflow that the engine has begun, and that runs nowhere, is resumed: the engine could not write, or could not start it.
    3. A job that was begun and whose workflow has ended without it is failed.
    """

    def __init__(self, workflows: Workflows, deps: Deps) -> None:
        """Do nothing yet; ``start`` comes after ``reconcile``."""
        self._workflows = workflows
        self._deps = deps
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._known: set[str] = set()
        self._idle: frozenset[str] = frozenset()  # what nobody worked on at the last look: it may just have been between two hands
        self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)

    def start(self, known: frozenset[str]) -> None:
        """Begin; ``known`` are jobs that have a workflow."""
        self._known |= known
        self._thread.start()

    def hand_over(self, job_id: str) -> None:
        """Let a job that has a row run when its turn comes. Returns at once."""
        self._new.put(job_id)

    def stop(self) -> None:
        """End; a call that waits for the database is left to itself."""
        self._new.put(None)
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        looked_at = 0.0
        while not self._deps.stopping.is_set():
            try:
                job_id = self._new.get(timeout=max(0.0, looked_at + LOOK_SECONDS - time.monotonic()))
            except queue.Empty:
                looked_at = time.monotonic()
                self._tried(self._look)
                continue
            if job_id is None:
                return
            self._tried(partial(self._enqueue, job_id))

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # the thread goes on: what was not done now is found at the next look
            if self._deps.stopping.is_set():
                return
            problem = storage_error(error)
            logger.warning("jobs are not handed over for now: %s", problem or error, exc_info=None if problem else error)

    def _enqueue(self, job_id: str) -> None:
        self._workflows.enqueue(job_id)
        self._known.add(job_id)

    def _look(self) -> None:
        unfinished = self._deps.store.unfinished_ids()
        self._known &= set(unfinished)
        for job_id in unfinished:
            if job_id not in self._known:  # case 1
                self._enqueue(job_id)
        begun = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        running = {job.id for job in self._deps.store.list(states=(JobState.RUNNING,))}
        idle = ({one.workflow_id for one in begun} | running) - self._workflows.active_jobs
        for job_id in idle & self._idle:
            self._mend(job_id)
        self._idle = frozenset(idle)

    def _mend(self, job_id: str) -> None:
        found = DBOS.get_workflow_status(job_id)
        if found is None or job_id in self._workflows.active_jobs:
            return
        if found.status == "PENDING":  # case 2
            logger.warning("job %s: nobody works on it; it is resumed", job_id)
            resume(job_id)
        elif found.status not in _ALIVE and not self._deps.store.state(job_id).is_finished:  # case 3
            self._deps.store.fail(job_id, _gave_up(found.status).problem(), {})


def _lost(what: str) -> OptimizerError:
    return OptimizerError(f"the server lost a part of the job: {what}", fix="Submit the job again.")


def _gave_up(status: str) -> OptimizerError:
    return OptimizerError(
        f"the job ended without an outcome (the workflow engine says {status})", fix="Report it with the job's id and the server's log."
    )


_ALIVE = {"ENQUEUED", "PENDING", "DELAYED"}
LOOK_SECONDS = 5.0
_STOP_SECONDS = 2.0
