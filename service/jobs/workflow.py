"""The durable job: the pipeline with each stage a recorded step of the workflow engine.

A finished step never runs again. A step that a crash or a stop interrupts is not recorded and runs again after the restart. Whether a job
is cancelled is asked of our own jobs table only, so the engine's states need no second look.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dbos import DBOS, Serializer, SetWorkflowID

from calibration.accuracy.kinds.part import JudgedOutput
from calibration.codec import as_object, json_from_value
from calibration.errors import OptimizerError, error_from_problem
from calibration.plain_text import folders_to_hide
from engine_builder.backends.registry import opens_gpu
from engine_builder.config.config import config_from_json
from engine_builder.errors import EngineError, StageCancelledError, StageCrashedError
from engine_builder.pipeline.optimize import JobRequest
from engine_builder.reporting.body.job_result import taken_outputs
from engine_builder.stage_io.measuring import JobFiles
from engine_builder.workspace.tree_removal import remove_tree
from engine_builder.workspace.workspace import Workspace
from service.errors import IllegalMoveError, RemovedError
from service.jobs.live.job_log import JobLog, versions
from service.jobs.outcome import collect, log_of
from service.jobs.records import Job, JobState, StoredFile
from service.jobs.resources import Deps
from service.worker.child_process import StageLimits
from service.worker.trial_line import trial_line

logger = logging.getLogger(__name__)

QUEUE = "jobs"
EXECUTOR_ID = "embedded"


class Workflows:
    """The workflow engine of this process, of which there can be one at a time."""

    def __init__(self, deps: Deps) -> None:
        """Prepare; ``launch`` starts."""
        self._deps = deps
        self._active = _Counter()
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

    def stop(self) -> None:
        """End the running stage and the engine; the job goes on at the next start."""
        self._deps.stopping.set()
        self._active.wait_for_zero(_STOP_SECONDS)
        DBOS.destroy(destroy_registry=True)


def make_optimize_job(deps: Deps, active: _Counter) -> Callable[[str], str]:
    """Return the workflow: a function of the job's id that gives the state in which the job ended."""

    def optimize_job(job_id: str) -> str:
        with active:
            if deps.stopping.is_set():
                raise ServerStopping
            try:
                if deps.store.start(job_id):
                    try:
                        _run(deps, deps.store.get(job_id))
                    except JobCancelled:
                        logger.info("job %s: cancelled", job_id)
                ended = deps.store.state(job_id).value
            except RemovedError:  # it was cancelled as it waited, and deleted
                ended = "removed"
            remove_tree(deps.workspace(job_id))
            return ended

    return optimize_job


class ServerStopping(BaseException):
    """The server stops. No ``Exception``, so that neither the pipeline takes it for a failed trial nor the engine for a step's outcome."""


class JobCancelled(BaseException):
    """The job was cancelled. No ``Exception``, for the same reason."""


class JsonSerializer(Serializer):
    """Keeps values and errors as JSON: whoever can write the database cannot make us run code."""

    def name(self) -> str:
        """Return the name that is noted beside each value."""
        return "onnx-trt-optimizer-json"

    def serialize(self, data: object) -> str:
        """Return the JSON of a value or of an error."""
        if isinstance(data, OptimizerError):
            return json.dumps({_ERROR: data.problem(), _SECONDS: data.seconds if isinstance(data, EngineError) else 0.0})
        if isinstance(data, BaseException):
            return json.dumps({_ERROR: OptimizerError(f"{type(data).__name__}: {data}", fix=_REPORT_IT).problem()})
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> object:
        """Return the value, or the error as the class it was, if that is one of ours."""
        data = json.loads(serialized_data)
        if not isinstance(data, dict) or _ERROR not in data or not set(data) <= {_ERROR, _SECONDS}:
            return data
        error = error_from_problem(data[_ERROR])
        if isinstance(error, EngineError):
            error.seconds = float(data.get(_SECONDS, 0.0))
        return error


def _run(deps: Deps, job: Job) -> None:
    workspace = deps.workspace(job.id)
    run = _JobRun(deps, job)
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
        with deps.filing:
            result, engine, artifacts = collect(outcome, workspace, deps.artifacts)
            _succeed(deps, job, result, engine, artifacts)
    except Exception as error:
        if deps.stopping.is_set():  # the engine is being taken down under our feet: no outcome of the job
            raise ServerStopping from error
        _fail(deps, job, _problem(job, error, workspace), workspace)


def _succeed(deps: Deps, job: Job, result: Mapping[str, object], engine: str, artifacts: Mapping[str, StoredFile]) -> None:
    try:
        deps.store.succeed(job.id, result, engine, artifacts)
    except IllegalMoveError:
        logger.info("job %s: it was cancelled as it ended", job.id)


class _JobRun:
    """What the pipeline calls back: runs its stages as recorded steps and notes its progress."""

    def __init__(self, deps: Deps, job: Job) -> None:
        self._deps = deps
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
        result = DBOS.run_step({"name": name}, self._run_in_child, stage, request, span)
        self._note(self._stage, span[1], at_once=False)
        return result

    def entered(self, stage: str, progress: float) -> None:
        if progress >= self._progress:
            self.say_once(f"stage {stage}")
        self._note(stage, progress, at_once=True)

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        self._deps.store.record_outputs(self._job_id, [as_object(json_from_value(one)) for one in taken_outputs(outputs)])

    def noted(self, text: str) -> None:
        logger.info("job %s: %s", self._job_id, text)  # the report has it among its notes
        self.say_once(f"warning: {text}")

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        for trial in trials[self._trials :]:
            self.say(trial_line(trial) + (", the best so far" if trial.get("index") == best else ""))
        self._trials = max(self._trials, len(trials))
        self._deps.store.record_trials(self._job_id, trials, best)

    def say(self, text: str) -> None:
        """Write a line to the job's log, and tell it to who listens."""
        self._deps.store.log(self._job_id, self._log.line(text))

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
        except StageCrashedError as error:
            # Whoever stops a service may signal its whole process tree: the child's death may reach us before our own signal does.
            if self._deps.stopping.wait(_SIGNAL_SECONDS):
                raise ServerStopping from error
            self.say(f"warning: {stage} failed: {error.detail}")
            raise

    def _should_end(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at >= _ASK_SECONDS and not self._deps.stopping.is_set():
            self._asked_at = now
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
        self._deps.store.advance(self._job_id, stage, progress)


def _fail(deps: Deps, job: Job, problem: Mapping[str, object], workspace: Path) -> None:
    JobLog(workspace, deps.clock).line(f"failed: {problem.get('detail')}")
    try:
        with deps.filing:
            deps.store.fail(job.id, problem, log_of(workspace, deps.artifacts))
    except IllegalMoveError:
        logger.info("job %s: it was cancelled as it failed", job.id)


def _problem(job: Job, error: Exception, workspace: Path) -> Mapping[str, object]:
    if isinstance(error, OptimizerError):
        logger.info("job %s: failed: %s", job.id, error)
        return error.problem(folders_to_hide(workspace))
    logger.error("job %s: failed", job.id, exc_info=error)
    return OptimizerError("the job met an unexpected error, which the server has logged", fix=_REPORT_IT).problem()


class _Counter:
    """How many jobs run in this process."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_for_zero(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0, seconds)


_ERROR = "__error__"
_SECONDS = "__seconds__"
_REPORT_IT = "This is a fault of the service: report it with the job's id and the server's log."
_ASK_SECONDS = 0.25
_NOTE_SECONDS = 0.25
_SIGNAL_SECONDS = 1.0
_STOP_SECONDS = 5.0
