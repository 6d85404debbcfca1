"""Makes the jobs table and the workflow engine agree: at start, whatever moment the last process ended in, and from then on.

The row is what counts. A new job is a row; the dispatcher hands it to the engine when its turn comes and a worker is free for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dbos import DBOS, WorkflowStatus

from calibration.errors import OptimizerError
from engine_builder.workspace.tree_removal import remove_tree
from service.database.advisory_locks import database_lock
from service.database.engine import check_answers
from service.database.storage_errors import storage_error
from service.errors import InvalidRequestError, NotFoundError, RemovedError
from service.jobs.execution.line import next_in_line, traffic
from service.jobs.execution.queue_pace import QueuePace
from service.jobs.faults.job_note import damaged_inputs, find_note
from service.jobs.records import Job, JobState
from service.jobs.resources import Deps
from service.jobs.workflow import JOB, QUEUE, Workflows, delete_recorded, resume

logger = logging.getLogger(__name__)


def reconcile(workflows: Workflows, deps: Deps) -> None:
    """Start anew what an older version left, and remove folders that no job needs.

    The engine itself goes on with the jobs that it knows under our version. Here come the others:
    1. A job that was begun and that the engine does not know (of an earlier database) starts anew.
    2. A job that another version of the pipeline began starts anew, since its recorded steps would not fit; unless a process of that
       version is alive, which finishes it.
    3. A job that the engine gave up (it ended the whole server again and again) is failed.
    4. An unfinished job whose folder is gone (the database lost its last changes, or the disk its files) is failed.
    5. A folder with the note of a job that has no row (the database was lost) becomes a job again, and starts anew.
    6. Any other folder, of a finished job or of a request that never became a job, is removed; where others submit jobs meanwhile, once it
       is old.

    Args:
        workflows: The launched engine.
        deps: The server's belongings.
    """
    with database_lock(deps.store.engine, "reconcile"):
        _adopt_lost_jobs(deps)
        unfinished = deps.store.list(states=(JobState.QUEUED, JobState.RUNNING))
        ids = [job.id for job in unfinished]
        for job in [job for job in unfinished if job.new.branches]:
            deps.store.settle(job.id)
        found_all = DBOS.list_workflows(workflow_ids=ids, load_input=False, load_output=False) if ids else []
        known = {found.workflow_id: found for found in found_all}
        versions = _living_versions(deps)
        for job in reversed([job for job in unfinished if not job.new.branches]):  # oldest first
            found = known.get(job.id)
            if not deps.folders.is_there(job.id):  # case 4
                if deps.store.state(job.id).is_finished:  # meanwhile, elsewhere
                    continue
                logger.error("job %s: its folder is gone", job.id)
                deps.store.fail(job.id, _lost("its folder is gone").problem(), {})
            elif found is None:  # case 1
                _start_anew(job, workflows, deps)
            elif found.app_version not in versions and found.status in _ALIVE:  # case 2
                logger.info("job %s: begun by version %s of the pipeline, starts anew", job.id, found.app_version)
                delete_recorded(job.id)
                _start_anew(job, workflows, deps)
            elif found.status not in _ALIVE and not deps.store.state(job.id).is_finished:  # case 3; it may have ended since we asked
                deps.store.fail(job.id, _gave_up(found.status).problem(), {})
        for path in _folders(deps):
            if path.name not in set(ids) and (deps.membership is None or _is_old(path)):  # case 6
                remove_tree(path)


def _living_versions(deps: Deps) -> frozenset[str]:
    """Return the versions of the pipeline whose jobs are finished by somebody: our own, and those of others that run jobs."""
    members = () if deps.membership is None else deps.membership.members.alive()
    return frozenset({deps.pipeline.version, *(member.version for member in members if member.role.takes_jobs)})


def _start_anew(job: Job, workflows: Workflows, deps: Deps) -> None:
    """Forget what was found; a queued job comes when its turn does."""
    if job.state is JobState.RUNNING or job.trials:
        deps.store.restart_search(job.id)
    if job.state is JobState.RUNNING:
        workflows.enqueue(job.id)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _OLD_SECONDS
    except OSError:
        return False


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
    """Hands the engine one job at a time, whenever this process is free for one; a thread of its own.

    What waits is in the jobs table alone, so that whose turn it is can be said at the last moment. Now and then it looks for jobs that
    nobody works on:
    1. A workflow of this process that was begun and that does not run here is resumed: the engine could not write, or could not start it,
       or the lease was lost.
    2. A job that was begun and that the engine does not know is enqueued.
    3. A job whose workflow has ended without it is failed.
    4. A job of a version of the pipeline of which no process has run jobs for a while starts anew.
    """

    def __init__(self, workflows: Workflows, deps: Deps) -> None:
        """Do nothing yet; ``start`` comes after ``reconcile``."""
        self._workflows = workflows
        self._deps = deps
        self._woken = threading.Event()
        self._idle: frozenset[str] = frozenset()  # what nobody worked on at the last look: it may just have been between two hands
        self._orphans: dict[str, float] = {}  # jobs of versions that nobody runs, and since when they were found so
        self._pace = None if deps.membership is None else QueuePace(workflows.set_pace)
        self._is_pressed = False  # whether jobs wait, so that the next look is soon
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once whether there is a job to run: one was submitted, or one has ended. Returns at once."""
        self._woken.set()

    def stop(self) -> None:
        """End; a call that waits for the database is left to itself."""
        self._ending = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        looked_at = 0.0
        while not (self._ending or self._deps.stopping.is_set()):
            self._woken.clear()
            if time.monotonic() - looked_at >= LOOK_SECONDS:
                looked_at = time.monotonic()
                self._tried(self.look)
            self._tried(self.take_up_again)
            self._tried(self.hand_over)
            self._woken.wait(self._pause())

    def _pause(self) -> float:
        """Return the seconds until the next look, if nobody wakes this thread; where others submit jobs that may have gone unheard."""
        if self._deps.membership is None:
            return LOOK_SECONDS
        return _ASK_SECONDS if self._is_pressed or self._workflows.active.broken_off() else _QUIET_SECONDS

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # the thread goes on: what was not done now is found at the next look
            if self._deps.stopping.is_set():
                return
            problem = storage_error(error)
            logger.warning("jobs are not handed over for now: %s", problem or error, exc_info=None if problem else error)

    def take_up_again(self) -> None:
        """Resume what was broken off here, as soon as this process has a lease again: before it takes anything new."""
        active = self._workflows.active
        if not (left := active.broken_off()) or self._deps.lease_number() is None or self._deps.stopping.is_set():
            return
        check_answers(self._deps.store.engine)
        begun = DBOS.list_workflows(status="PENDING", executor_id=self._deps.name, load_input=False, load_output=False)
        for job_id in {one.workflow_id for one in begun} & left:
            self._mend(job_id)
        active.forget_broken_off(left)

    def hand_over(self) -> None:
        """Enqueue the next job, if this process is free and none is on its way to a worker."""
        self._is_pressed = False
        if self._workflows.active_jobs or self._deps.lease_number() is None:
            return
        now = traffic(self._deps.store.engine)  # asked by hundreds of free workers, and without the lock that they share
        if self._pace is not None:
            self._pace.saw(is_busy=now.anyone_waits or now.anyone_runs)
        if not self._deps.role.takes_jobs or not now.anyone_waits:
            return
        self._is_pressed = True
        with database_lock(self._deps.store.engine, "line"):
            begun = DBOS.list_workflows(status=list(_ALIVE), queue_name=QUEUE, name=JOB, load_input=False, load_output=False)
            if any(one.status != "PENDING" and one.app_version == self._deps.pipeline.version for one in begun):
                return
            taken = [one.workflow_id for one in begun]
            job_id = next_in_line(self._deps.store.engine, taken, self._deps.settings.tenant_running_jobs)
            if job_id is None:
                return
            self._workflows.enqueue(job_id)
        found = DBOS.get_workflow_status(job_id)
        if found is not None and found.status not in _ALIVE:  # case 3: it had ended before
            self._fail(job_id, found.status)

    def look(self) -> None:
        """Mend what nobody works on: cases 1 to 4. What was found so at the last look too is mended now."""
        if self._deps.lease_number() is None:
            return
        if self._pace is not None:
            self._pace.doubt()
        takes_jobs, running = self._deps.role.takes_jobs, frozenset[str]()
        if takes_jobs:  # our own question comes before that to the engine, which waits without an end while the database is away
            running = self._deps.store.running_ids()
        else:
            check_answers(self._deps.store.engine)
        alive = _alive() if takes_jobs else _alive(self._deps.name)
        begun = {one.workflow_id for one in alive if one.status == "PENDING" and one.executor_id == self._deps.name}
        jobs = [one for one in alive if one.queue_name == QUEUE and one.name == JOB]
        # Of other processes' jobs only those that run and of which the engine knows no run that goes on.
        idle = (begun | (running - {one.workflow_id for one in jobs})) - self._workflows.active_jobs
        for job_id in idle & self._idle:
            self._mend(job_id)
        self._idle = frozenset(idle)
        if (membership := self._deps.membership) is not None and takes_jobs:
            self._take_up_old_versions(jobs, membership.lease.seconds * AWAY_LEASES)

    def _take_up_old_versions(self, jobs: Sequence[WorkflowStatus], seconds: float) -> None:
        """Case 4, for jobs that were found so for longer than some seconds: who restarts an old worker has that long."""
        if all(one.app_version == self._deps.pipeline.version for one in jobs):
            self._orphans = {}
            return
        versions, now = _living_versions(self._deps), time.monotonic()
        old = {one.workflow_id: one.app_version for one in jobs if one.app_version not in versions}
        self._orphans = {job_id: self._orphans.get(job_id, now) for job_id in old}
        for job_id in [job_id for job_id, since in self._orphans.items() if now - since >= seconds]:
            with database_lock(self._deps.store.engine, "reconcile"):
                found = DBOS.get_workflow_status(job_id)
                if found is None or found.app_version not in old.values():  # another worker was first
                    continue
                logger.info("job %s: begun by version %s of the pipeline, starts anew", job_id, found.app_version)
                job = self._deps.store.get(job_id)
                delete_recorded(job_id)
                _start_anew(job, self._workflows, self._deps)

    def _mend(self, job_id: str) -> None:
        found = DBOS.get_workflow_status(job_id)
        if job_id in self._workflows.active_jobs:
            return
        if found is None:  # case 2
            if self._deps.store.state(job_id) is JobState.RUNNING:
                self._workflows.enqueue(job_id)
        elif found.status == "PENDING":  # case 1
            if found.executor_id == self._deps.name:
                logger.warning("job %s: nobody works on it; it is resumed", job_id)
                resume(job_id, found.queue_name or QUEUE)
        elif found.status not in _ALIVE:  # case 3
            with suppress(NotFoundError, RemovedError):  # of a stage elsewhere or a part of one, which ended meanwhile
                self._fail(job_id, found.status)

    def _fail(self, job_id: str, status: str) -> None:
        if not self._deps.store.state(job_id).is_finished:
            self._deps.store.fail(job_id, _gave_up(status).problem(), {})


def _alive(owner: str | None = None) -> list[WorkflowStatus]:
    """Return the workflows that are to go on, of all processes or of one."""
    return DBOS.list_workflows(status=list(_ALIVE), executor_id=owner, load_input=False, load_output=False)


def _lost(what: str) -> OptimizerError:
    return OptimizerError(f"the server lost a part of the job: {what}", fix="Submit the job again.")


def _gave_up(status: str) -> OptimizerError:
    return OptimizerError(
        f"the job ended without an outcome (the workflow engine says {status})", fix="Report it with the job's id and the server's log."
    )


_ALIVE = {"ENQUEUED", "PENDING", "DELAYED"}
LOOK_SECONDS = 5.0
_ASK_SECONDS = 0.25  # where jobs are submitted to other processes, while any waits
_QUIET_SECONDS = 1.0  # while none does: whoever submits one wakes us
AWAY_LEASES = 4  # so many leases long nobody of a version has to be there
_OLD_SECONDS = 24 * 3600.0
_STOP_SECONDS = 2.0
