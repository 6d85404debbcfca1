"""The durable job: the pipeline with each stage a recorded step of the workflow engine.

A finished step never runs again. A step that a crash or a stop interrupts is not recorded and runs again after the restart. Whether a job
is cancelled is asked of our own jobs table only, so the engine's states need no second look.

Where the disk or the database fails the job waits (``Patience``). Should the engine itself fail to write, which it does between two of our
lines, the workflow ends without an outcome and is resumed: recorded steps are passed through, and it goes on.
"""

from __future__ import annotations

import contextvars
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID, WorkflowHandle

from calibration.errors import OptimizerError
from calibration.plain_text import folders_to_hide
from engine_builder.config.config import config_from_json
from engine_builder.pipeline.optimize import JobRequest
from engine_builder.pipeline.parts import RunParts
from engine_builder.stage_io.measuring import JobFiles
from engine_builder.stage_io.outcome import JobOutcome
from service.database.advisory_locks import session_lock
from service.database.connection_check import checked_pool
from service.database.engine import few_connections, names_postgres, reach
from service.database.storage_errors import storage_error
from service.errors import IllegalMoveError, RemovedError, StorageError
from service.jobs.branches.shared_stages import SharedStages
from service.jobs.execution.ahead.prepare_stage import PrepareStage, make_prepare_stage
from service.jobs.execution.ahead.trials_ahead import TrialsAhead, end_ahead
from service.jobs.execution.fan_out import FanOut, forget_parts
from service.jobs.execution.giving_way import PART, PREPARE
from service.jobs.execution.gpu_stage import GpuStage, make_gpu_stage, run_elsewhere
from service.jobs.execution.job_run import Elsewhere, JobRun
from service.jobs.execution.placement import gpu_queue, placed_on
from service.jobs.execution.queue_pace import BRISK_SECONDS, IDLE_SECONDS, set_pace
from service.jobs.execution.stage_part import StagePart, make_stage_part
from service.jobs.execution.takeover import is_run
from service.jobs.faults.active_jobs import ActiveJobs
from service.jobs.faults.endings import JobCancelled, ServerStopping, Tenure, end_of, why_ended
from service.jobs.faults.waiting import Patience
from service.jobs.outcome import collect, log_of
from service.jobs.records import Job, StoredFile
from service.jobs.resources import Deps
from service.jobs.upkeep.workspaces import remove_parents
from service.jobs.workflow_json import REPORT_IT, JsonSerializer
from service.worker.kernel_times import shared_kernel_times
from service.worker.stage_log import JobLog, versions

logger = logging.getLogger(__name__)

QUEUE = "jobs"  # of jobs, and of parts of their stages, for cpu workers that are idle
JOB = "optimize_job"  # name of the workflow


class Workflows:
    """The workflow engine of this process, of which there can be one at a time."""

    def __init__(self, deps: Deps, on_end: Callable[[], None] = lambda: None) -> None:
        """Prepare; ``launch`` starts. ``on_end`` is called whenever a job has ended here."""
        self._deps = deps
        self._active = ActiveJobs(on_end)
        self._optimize_job: Callable[[str], str] | None = None

    def launch(self) -> None:
        """Start the engine: jobs that were running when the last process of this name ended go on."""
        DBOS(
            config={
                "name": "onnx-trt-optimizer",
                "system_database_url": self._deps.database_url,
                "executor_id": self._deps.name,
                "application_version": self._deps.pipeline.version,
                "serializer": JsonSerializer(),
                "log_level": "WARNING",
                "notification_coalesce_sec": _NEVER_SECONDS,
                "db_engine_kwargs": _engine_arguments(self._deps),
            }
        )
        gpu_stage = DBOS.workflow(name="gpu_stage")(make_gpu_stage(self._deps, self._active))
        part = DBOS.workflow(name=PART)(make_stage_part(self._deps, self._active))
        prepare = DBOS.workflow(name=PREPARE)(make_prepare_stage(self._deps, self._active))
        fan_out = _fan_out(self._deps, part)
        self._optimize_job = DBOS.workflow(name=JOB)(make_optimize_job(self._deps, self._active, gpu_stage, prepare, fan_out))
        DBOS.listen_queues(list(self.queues))
        seconds = BRISK_SECONDS if self._deps.membership is None else IDLE_SECONDS
        with session_lock(self._deps.database_url, "engine"):  # one at a time makes its tables
            DBOS.launch()
            for name in self.queues:
                DBOS.register_queue(name, worker_concurrency=1, polling_interval_sec=seconds, on_conflict="always_update")

    @property
    def queues(self) -> tuple[str, ...]:
        """The queue from which this process takes workflows; none where it takes none."""
        gpu = None if self._deps.membership is None else self._deps.membership.member.gpu
        return (QUEUE,) if self._deps.role.takes_jobs else () if gpu is None else (gpu_queue(gpu),)

    def set_pace(self, is_brisk: bool) -> None:
        """Let the processes that share this queue look into it often, or seldom."""
        for name in self.queues:
            set_pace(name, is_brisk=is_brisk)

    def enqueue(self, job_id: str) -> None:
        """Let the next worker that is free run the job; one that is enqueued already stays as it is."""
        assert self._optimize_job is not None
        with SetWorkflowID(job_id):
            DBOS.enqueue_workflow(QUEUE, self._optimize_job, job_id)

    def forget(self, job_id: str) -> None:
        """Remove what the engine recorded of a job that is finished."""
        delete_recorded(job_id)

    @property
    def active(self) -> ActiveJobs:
        """What runs in this process now, and what was broken off here."""
        return self._active

    @property
    def active_jobs(self) -> frozenset[str]:
        """The jobs that run in this process now."""
        return self._active.ids()

    def stop(self) -> None:
        """End the running stage and the engine; the job goes on at the next start."""
        self._deps.stopping.set()
        self._active.wait_for_none(_STOP_SECONDS)
        DBOS.destroy(destroy_registry=True)


def _engine_arguments(deps: Deps) -> dict[str, object]:
    if not names_postgres(deps.database_url):
        return few_connections()
    return {"connect_args": {**reach(), "application_name": "onnx-trt-optimizer-engine"}, **checked_pool()}


def delete_recorded(job_id: str) -> None:
    """Remove what the engine recorded of a job, of its stages elsewhere and of parts of them."""
    DBOS.delete_workflow(job_id, delete_children=True)
    forget_parts(f"{job_id}:")


def _fan_out(deps: Deps, part: StagePart) -> RunParts | None:
    """Return what shares parts of stages with other workers; None where there are none, or where they do not see the same folders."""
    if (membership := deps.membership) is None or deps.settings.shared_dir is None:
        return None
    return FanOut(membership.members, deps.name, deps.pipeline.version, QUEUE, part).run


def make_optimize_job(
    deps: Deps, active: ActiveJobs, gpu_stage: GpuStage, prepare: PrepareStage, fan_out: RunParts | None = None
) -> Callable[[str], str]:
    """Return the workflow: a function of the job's id that gives the state in which the job ended.

    Args:
        deps: The server's belongings.
        active: Told that the job runs here.
        gpu_stage: The workflow of a stage that runs on the worker of a GPU.
        prepare: The workflow of what is done there before it is asked for.
        fan_out: Runs the parts of stages on several workers; None where there is only this one.
    """
    interruptions: Counter[str] = Counter()

    def optimize_job(job_id: str) -> str:
        with active.with_job(job_id):
            tenure = Tenure(deps)
            patience = Patience(deps, job_id, lambda: why_ended(deps, job_id, tenure))
            deps.store.holds.release(job_id)  # by a process that died as it waited
            try:
                try:
                    patience.run(deps.check_files)
                    if patience.run(lambda: deps.store.start(job_id)):
                        job = patience.run(lambda: deps.store.get(job_id))
                        patience.run(lambda: deps.folders.begin(job_id))
                        with shared_kernel_times(deps.kernel_times, deps.workspace(job_id), config_from_json(dict(job.new.config))):
                            gpu = _gpu_of(deps, job)
                            elsewhere = None if gpu is None else _elsewhere(job, gpu, gpu_stage)
                            _run(deps, job, patience, tenure, elsewhere, fan_out, _ahead(deps, job, gpu, prepare))
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
            if tenure.is_lost():  # the folder may be another's by now
                raise ServerStopping
            if deps.membership is not None:
                patience.run(lambda: end_ahead(job_id))
            patience.run(lambda: deps.folders.remove(job_id))
            remove_parents(deps, job_id)
            return ended

    return optimize_job


def _waited(deps: Deps, job_id: str, error: _EngineInterruptedError, before: int, patience: Patience) -> int:
    """Wait until the engine can write again; return how often it could not, or 0 where that was too often and the job has failed."""
    try:
        return max(1, patience.wait(error.problem, before))
    except StorageError as given_up:
        _fail(deps, job_id, given_up.problem(), deps.workspace(job_id), patience)
        return 0


def resume(workflow_id: str, queue: str = QUEUE) -> None:
    """Let the queue start a workflow again that has neither an outcome nor a thread; its recorded steps are kept."""
    DBOS.resume_workflow(workflow_id, queue_name=queue)


def _resume(job_id: str) -> None:
    contextvars.Context().run(resume, job_id)  # in the workflow's own context the engine would record it as one of its steps


class _EngineInterruptedError(BaseException):
    """The workflow engine could not write, so that its steps and ours no longer agree. No ``Exception``, as ``ServerStopping``."""

    def __init__(self, problem: StorageError) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def _gpu_of(deps: Deps, job: Job) -> str | None:
    """Return the type of GPU whose workers run the job's GPU stages; None where they run here.

    Recorded: a later run has to find the same steps.
    """
    if (membership := deps.membership) is None:
        return None
    config = config_from_json(dict(job.new.config))
    return DBOS.run_step({"name": "placement"}, lambda: placed_on(config, membership.members))


def _ahead(deps: Deps, job: Job, gpu: str | None, prepare: PrepareStage) -> TrialsAhead | None:
    """Return what has engines of the job built before its search asks for them; None where nobody does."""
    if gpu is None or deps.settings.trials_ahead == 0 or not deps.pipeline.preparations:
        return None
    return TrialsAhead(deps, job.id, gpu_queue(gpu), prepare)


def _elsewhere(job: Job, gpu: str, gpu_stage: GpuStage) -> Elsewhere:
    """Return what runs the job's GPU stages on workers."""

    def run(
        name: str,
        stage: str,
        request: Mapping[str, object],
        span: tuple[float, float],
        should_end: Callable[[], bool],
        why_ended: Callable[[], BaseException],
        meanwhile: Callable[[], None],
    ) -> dict[str, object]:
        def enqueue() -> WorkflowHandle[dict[str, object]]:
            return DBOS.enqueue_workflow(gpu_queue(gpu), gpu_stage, job.id, name, stage, dict(request), list(span))

        return run_elsewhere(enqueue, should_end, why_ended, meanwhile)

    return run


def _run(
    deps: Deps,
    job: Job,
    patience: Patience,
    tenure: Tenure,
    elsewhere: Elsewhere | None,
    fan_out: RunParts | None,
    ahead: TrialsAhead | None,
) -> None:
    workspace = deps.workspace(job.id)
    run = JobRun(deps, job, patience, tenure, elsewhere, _shared(deps, job, patience), fan_out, ahead)
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
        if tenure.is_over():  # the engine, or the job's folder, is being taken from under our feet: no outcome of the job
            raise ServerStopping from error
        if isinstance(error, sa.exc.DBAPIError) and (problem := storage_error(error)) is not None:  # ours are translated
            raise _EngineInterruptedError(problem) from error
        _fail(deps, job.id, _problem(job, error, workspace), workspace, patience)


def _shared(deps: Deps, job: Job, patience: Patience) -> SharedStages | None:
    """Return what the branches of one job measure once, where the job is one."""
    if (parent := job.new.parent) is None:
        return None
    members = None if deps.membership is None else deps.membership.members
    pipeline = deps.pipeline
    return patience.run(
        lambda: SharedStages(deps.workspace(parent), pipeline.version, pipeline.kept_stages, job.id, lambda other: is_run(other, members))
    )


def _file(deps: Deps, job: Job, outcome: JobOutcome) -> None:
    """Store what the job made, and note that it has succeeded: both while nobody removes files that no job needs."""
    deps.folders.ready(job.id, (*outcome.artifacts.values(), outcome.engine))
    with deps.filing:
        result, engine, artifacts = collect(outcome, deps.workspace(job.id), deps.artifacts)
        _succeed(deps, job, result, engine, artifacts)


def _succeed(deps: Deps, job: Job, result: Mapping[str, object], engine: str, artifacts: Mapping[str, StoredFile]) -> None:
    try:
        deps.store.succeed(job.id, result, engine, artifacts)
    except IllegalMoveError:
        logger.info("job %s: it was cancelled as it ended", job.id)


def _fail(deps: Deps, job_id: str, problem: Mapping[str, object], workspace: Path, patience: Patience) -> None:
    patience.run(deps.check_files)
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


_STOP_SECONDS = 5.0
_NEVER_SECONDS = 60.0  # between two looks at whether the engine has messages to send, of which we make none
