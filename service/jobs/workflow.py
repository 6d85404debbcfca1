"""The durable job: the pipeline with each stage a recorded step of the workflow engine.

A finished step never runs again. A step that a crash or a stop interrupts is not recorded and runs again after the restart. Whether a job
is cancelled is asked of our own jobs table only, so the engine's states need no second look.

Where the disk or the database fails the job waits (``Patience``). Should the engine itself fail to write, which it does between two of our
lines, the workflow ends without an outcome and is resumed: recorded steps are passed through, and it goes on.
"""

from __future__ import annotations

import contextvars
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID

from calibration.accuracy.kinds.part import JudgedOutput
from calibration.codec import as_object, json_from_value
from calibration.errors import OptimizerError
from calibration.plain_text import folders_to_hide
from engine_builder.backends.registry import opens_gpu
from engine_builder.config.config import config_from_json
from engine_builder.errors import StageCancelledError, StageCrashedError
from engine_builder.pipeline.optimize import JobRequest
from engine_builder.reporting.body.job_result import taken_outputs
from engine_builder.stage_io.measuring import JobFiles
from engine_builder.stage_io.outcome import JobOutcome
from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import Workspace
from service.errors import IllegalMoveError, RemovedError, StorageError
from service.jobs.faults.active_jobs import ActiveJobs
from service.jobs.faults.endings import JobCancelled, ServerStopping, end_of, why_ended
from service.jobs.faults.waiting import Patience
from service.jobs.live.job_log import JobLog, versions
from service.jobs.outcome import collect, log_of
from service.jobs.records import Job, JobState, StoredFile
from service.jobs.resources import Deps
from service.jobs.storage.storage_errors import storage_error
from service.jobs.workflow_json import REPORT_IT, JsonSerializer
from service.worker.child_process import StageLimits
from service.worker.kernel_times import shared_kernel_times
from service.worker.trial_line import trial_line

logger = logging.getLogger(__name__)

QUEUE = "jobs"
EXECUTOR_ID = "embedded"


class Workflows:
    """The workflow engine of this process, of which there can be one at a time."""

    def __init__(self, deps: Deps) -> None:
        """Prepare; ``launch`` starts."""
        self._deps = deps
        self._active = ActiveJobs()
        self._optimize_job: Callable[[str], str] | None = None

    def launch(self) -> None:
        """Start the engine: jobs that were running when the last process ended go on."""
        DBOS(
            config={
                "name": "onnx-trt-optimizer",
                "system_database_url": self._deps.database_url,
                "executor_id": EXECUTOR_ID,
                "application_version": self._deps.pipeline.version,
                "serializer": JsonSerializer(),
                "log_level": "WARNING",
            }
        )
        self._optimize_job = DBOS.workflow(name="optimize_job")(make_optimize_job(self._deps, self._active))
        DBOS.listen_queues([QUEUE])
        DBOS.launch()
        DBOS.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=0.2, on_conflict="always_update")

    def enqueue(self, job_id: str) -> None:
        """Let the job run when its turn comes; one that is enqueued already stays as it is."""
        assert self._optimize_job is not None
        with SetWorkflowID(job_id):
            DBOS.enqueue_workflow(QUEUE, self._optimize_job, job_id)

    def forget(self, job_id: str) -> None:
        """Remove what the engine recorded of a job that is finished."""
        DBOS.delete_workflow(job_id)

    @property
    def active_jobs(self) -> frozenset[str]:
        """The jobs that run in this process now."""
        return self._active.ids()

    def stop(self) -> None:
        """End the running stage and the engine; the job goes on at the next start."""
        self._deps.stopping.set()
        self._active.wait_for_none(_STOP_SECONDS)
        DBOS.destroy(destroy_registry=True)


def make_optimize_job(deps: Deps, active: ActiveJobs) -> Callable[[str], str]:
    """Return the workflow: a function of the job's id that gives the state in which the job ended."""
    interruptions: Counter[str] = Counter()

    def optimize_job(job_id: str) -> str:
        with active.with_job(job_id):
            if deps.stopping.is_set():
                raise ServerStopping
            patience = Patience(deps, job_id, lambda: why_ended(deps, job_id))
            try:
                try:
                    if patience.run(lambda: deps.store.start(job_id)):
                        job = patience.run(lambda: deps.store.get(job_id))
                        with shared_kernel_times(deps.kernel_times, deps.workspace(job_id), config_from_json(dict(job.new.config))):
                            _run(deps, job, patience)
                except _EngineInterruptedError as error:
                    interruptions[job_id] = _waited(deps, job_id, error, interruptions[job_id], patience)
                    if interruptions[job_id]:
                        patience.run(lambda: _resume(job_id))
                        raise
            except JobCancelled:
                logger.info("job %s: cancelled", job_id)
            except RemovedError:
                logger.info("job %s: it was cancelled as it waited, and deleted", job_id)
            interruptions.pop(job_id, None)
            ended = patience.run(lambda: end_of(deps, job_id))
            remove_tree(deps.workspace(job_id))
            return ended

    return optimize_job


def _waited(deps: Deps, job_id: str, error: _EngineInterruptedError, before: int, patience: Patience) -> int:
    """Wait until the engine can write again; return how often it could not, or 0 where that was too often and the job has failed."""
    try:
        return max(1, patience.wait(error.problem, before))
    except StorageError as given_up:
        _fail(deps, job_id, given_up.problem(), deps.workspace(job_id), patience)
        return 0


def resume(job_id: str) -> None:
    """Let the queue start a workflow again that has neither an outcome nor a thread; its recorded steps are kept."""
    DBOS.resume_workflow(job_id, queue_name=QUEUE)


def _resume(job_id: str) -> None:
    contextvars.Context().run(resume, job_id)  # in the workflow's own context the engine would record it as one of its steps


class _EngineInterruptedError(BaseException):
    """The workflow engine could not write, so that its steps and ours no longer agree. No ``Exception``, as ``ServerStopping``."""

    def __init__(self, problem: StorageError) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def _run(deps: Deps, job: Job, patience: Patience) -> None:
    workspace = deps.workspace(job.id)
    run = _JobRun(deps, job, patience)
    try:
        request = JobRequest(
            JobFiles(
                model=job.new.inputs["model"],
                calibration=job.new.inputs["calibration"],
                validation=job.new.inputs.get("validation"),
                metric_model=job.new.inputs.get("metric"),
            ),
            config_from_json(dict(job.new.config)),
        )
        run.say(f"{'goes on' if job.stage else 'begins'}: {versions(deps.pipeline.version)}")
        outcome = deps.pipeline.optimize(request, run.run_stage, run)
        run.say(f"ends: {outcome.result.get('outcome')}")
        patience.run(lambda: _file(deps, job, outcome))
    except Exception as error:
        if deps.stopping.is_set():  # the engine is being taken down under our feet: no outcome of the job
            raise ServerStopping from error
        if isinstance(error, sa.exc.DBAPIError) and (problem := storage_error(error)) is not None:  # ours are translated
            raise _EngineInterruptedError(problem) from error
        _fail(deps, job.id, _problem(job, error, workspace), workspace, patience)


def _file(deps: Deps, job: Job, outcome: JobOutcome) -> None:
    """Store what the job made, and note that it has succeeded: both while nobody removes files that no job needs."""
    with deps.filing:
        result, engine, artifacts = collect(outcome, deps.workspace(job.id), deps.artifacts)
        _succeed(deps, job, result, engine, artifacts)


def _succeed(deps: Deps, job: Job, result: Mapping[str, object], engine: str, artifacts: Mapping[str, StoredFile]) -> None:
    try:
        deps.store.succeed(job.id, result, engine, artifacts)
    except IllegalMoveError:
        logger.info("job %s: it was cancelled as it ended", job.id)


class _JobRun:
    """What the pipeline calls back: runs its stages as recorded steps and notes its progress."""

    def __init__(self, deps: Deps, job: Job, patience: Patience) -> None:
        self._deps = deps
        self._patience = patience
        self._job_id = job.id
        self._workspace = deps.workspace(job.id)
        self._stage = job.stage or "inspect"
        self._progress = job.progress
        self._noted_at = 0.0
        self._asked_at = 0.0
        self._state = JobState.RUNNING
        self._log = JobLog(self._workspace, deps.clock)
        self._said: set[str] = set()
        self._trials = len(job.trials)  # that the log has already
        config = config_from_json(dict(job.new.config))
        self._limits = StageLimits(
            memory_bytes=deps.settings.stage_memory_bytes,
            seconds=deps.settings.stage_seconds,
            opens_gpu=opens_gpu(config.target, config.gpu),
        )

    def run_stage(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        # On the workflow's own thread: a step from any other thread would not be recorded.
        result = DBOS.run_step({"name": name}, self._run_with_patience, stage, request, span)
        self._note(self._stage, span[1], at_once=False)
        return result

    def entered(self, stage: str, progress: float) -> None:
        if progress >= self._progress:
            self.say_once(f"stage {stage}")
        self._note(stage, progress, at_once=True)

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        taken = [as_object(json_from_value(one)) for one in taken_outputs(outputs)]
        self._patience.run(lambda: self._deps.store.record_outputs(self._job_id, taken))

    def noted(self, text: str) -> None:
        logger.info("job %s: %s", self._job_id, text)  # the report has it among its notes
        self.say_once(f"warning: {text}")

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        for trial in trials[self._trials :]:
            self.say(trial_line(trial) + (", the best so far" if trial.get("index") == best else ""))
        self._trials = max(self._trials, len(trials))
        self._patience.run(lambda: self._deps.store.record_trials(self._job_id, trials, best))

    def _run_with_patience(self, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        try:
            result = self._patience.run(lambda: self._run_in_child(stage, request, span))
        except StageCrashedError as error:
            self.say(f"warning: {stage} failed: {error.detail}")
            raise
        # The engine records the step next. On a disk without room that would fail, and the step would run again.
        self._patience.run(self._check_room)
        return result

    def _check_room(self) -> None:
        if shutil.disk_usage(self._deps.settings.data_dir).free < _ROOM_BYTES:
            self._deps.store.check_writable()

    def say(self, text: str) -> None:
        """Write a line to the job's log, and tell it to who listens."""
        line = self._log.line(text)
        with suppress(StorageError):  # the log has it
            self._deps.store.log(self._job_id, line)

    def say_once(self, text: str) -> None:
        """Say what was not said before, since the server last started."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def _run_in_child(self, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        low, high = span

        def compute() -> dict[str, object]:
            begun = time.monotonic()
            result = self._deps.run_child(
                stage,
                request,
                self._workspace,
                limits=self._limits,
                on_progress=lambda fraction, _message: self._note(self._stage, low + (high - low) * fraction, at_once=False),
                should_cancel=self._should_end,
            )
            self.say(f"{stage}: took {time.monotonic() - begun:.1f} s")
            return result

        cache = self._deps.cache
        try:
            return compute() if cache is None else dict(cache.run(stage, request, Workspace(self._workspace), compute))
        except StageCancelledError as error:
            raise self._why_ended() from error

    def _should_end(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at >= _ASK_SECONDS and not self._deps.stopping.is_set():
            self._asked_at = now
            with suppress(StorageError):  # asked again soon
                self._state = self._deps.store.state(self._job_id)
        return self._deps.stopping.is_set() or self._state is not JobState.RUNNING

    def _why_ended(self) -> BaseException:
        return ServerStopping() if self._state is JobState.RUNNING else JobCancelled()

    def _note(self, stage: str, progress: float, *, at_once: bool) -> None:
        """Write progress now and then, and never a lower one: a replay passes through what was noted before."""
        now = time.monotonic()
        if progress < self._progress or (progress == self._progress and stage == self._stage):
            return
        if not at_once and now - self._noted_at < _NOTE_SECONDS:
            return
        self._stage, self._progress, self._noted_at = stage, progress, now
        with suppress(StorageError):  # the next note says more
            self._deps.store.advance(self._job_id, stage, progress)


def _fail(deps: Deps, job_id: str, problem: Mapping[str, object], workspace: Path, patience: Patience) -> None:
    JobLog(workspace, deps.clock).line(f"failed: {problem.get('detail')}")

    def filed() -> None:
        with deps.filing:
            deps.store.fail(job_id, problem, log_of(workspace, deps.artifacts))

    try:
        patience.run(filed)
    except IllegalMoveError:
        logger.info("job %s: it was cancelled as it failed", job_id)


def _problem(job: Job, error: Exception, workspace: Path) -> Mapping[str, object]:
    if isinstance(error, OptimizerError):
        logger.info("job %s: failed: %s", job.id, error)
        return error.problem(folders_to_hide(workspace))
    logger.error("job %s: failed", job.id, exc_info=error)
    return OptimizerError("the job met an unexpected error, which the server has logged", fix=REPORT_IT).problem()


_ASK_SECONDS = 0.25
_NOTE_SECONDS = 0.25
_STOP_SECONDS = 5.0
_ROOM_BYTES = 64 * 2**20  # with more, a step's record surely fits
