"""One run of a job in this process: runs its stages as recorded steps, notes its progress, and ends when it is to run no longer."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from dbos import DBOS

from calibration.accuracy.kinds.part import JudgedOutput
from calibration.codec import as_object, json_from_value
from engine_builder.backends.registry import opens_gpu
from engine_builder.config.config import config_from_json
from engine_builder.errors import EngineError, StageCancelledError, StageCrashedError
from engine_builder.pipeline.parts import RunParts, in_words
from engine_builder.reporting.body.job_result import taken_outputs
from engine_builder.workspace.workspace import Workspace, file_refs
from service.errors import StorageError
from service.jobs.branches.shared_stages import SharedStages
from service.jobs.execution.side_calls import SideCalls
from service.jobs.faults.endings import JobCancelled, ServerStopping, Tenure
from service.jobs.faults.waiting import Patience
from service.jobs.records import Job, JobState
from service.jobs.resources import Deps
from service.worker.child_process import StageLimits
from service.worker.stage_log import JobLog
from service.worker.trial_line import trial_line

logger = logging.getLogger(__name__)

# Runs a stage in another process: name of the step, stage, request, span of the progress; whether to give up, and why; what to do
# meanwhile.
Elsewhere = Callable[
    [str, str, Mapping[str, object], tuple[float, float], Callable[[], bool], Callable[[], BaseException], Callable[[], None]],
    dict[str, object],
]


class Ahead(Protocol):
    """Has parts of stages that run elsewhere done before they are asked for; see ``trials_ahead``."""

    def foreseen(self, requests: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        """Take in what may be asked for from now on."""

    def tend(self) -> None:
        """Begin and give up what is due."""

    def taken(self, stage: str, request: Mapping[str, object], check: Callable[[], None]) -> Mapping[str, object] | None:
        """Return the request with what was prepared for it, which is kept until ``used``; None where nothing was."""

    def used(self) -> None:
        """Remove what was taken."""


class JobRun:
    """What the pipeline calls back: runs its stages as recorded steps and notes its progress."""

    def __init__(
        self,
        deps: Deps,
        job: Job,
        patience: Patience,
        tenure: Tenure,
        elsewhere: Elsewhere | None = None,
        shared: SharedStages | None = None,
        fan_out: RunParts | None = None,
        ahead: Ahead | None = None,
        *,
        may_open_gpu: bool = True,
    ) -> None:
        """Begin, or go on with a job.

        Args:
            deps: The server's belongings.
            job: The job, as its row is now.
            patience: Waits where disk or database fail.
            tenure: How long this process may run it.
            elsewhere: Runs the stages that open a GPU; None where they run here.
            shared: What the branches of the job's parent measure once; None where it is no branch.
            fan_out: Runs the parts of stages that can be split, on this worker and others; None where there are no others.
            ahead: Has parts of stages done before they are asked for; None where nobody does.
            may_open_gpu: Whether the stages that run here may be those that open the GPU of this machine, if the job has such.
        """
        self._deps = deps
        self._elsewhere = elsewhere
        self._shared = shared
        self._fan_out = fan_out
        self._ahead = ahead
        self._tenure = tenure
        self._patience = patience
        self._job_id = job.id
        self._workspace = deps.workspace(job.id)
        self._stage = job.stage or "inspect"
        self._progress = job.progress
        self._noted_at = 0.0
        self._asked_at = 0.0
        self._state = JobState.RUNNING
        self._side_calls = SideCalls()
        self._log = JobLog(self._workspace, deps.clock)
        self._said: set[str] = set()
        self._trials = len(job.trials)  # that the log has already
        config = config_from_json(dict(job.new.config))
        self._limits = StageLimits(
            memory_bytes=deps.settings.stage_memory_bytes,
            seconds=deps.settings.stage_seconds,
            opens_gpu=may_open_gpu and elsewhere is None and opens_gpu(config.target, config.gpu),
        )

    def run_stage(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        """Run a stage as a step that is recorded: a finished one never runs again."""
        # On the workflow's own thread: a step from any other thread would not be recorded.
        if self._elsewhere is not None and stage in self._deps.pipeline.gpu_stages:
            result = self._run_elsewhere(self._elsewhere, name, stage, request, span)
            self._patience.run(lambda: self._deps.folders.take_log(self._job_id))
            self._note(self._stage, span[1], at_once=False)
            return result
        result = DBOS.run_step({"name": name}, self._run_with_patience, name, stage, request, span)
        self._note(self._stage, span[1], at_once=False)
        return result

    def _run_elsewhere(
        self, elsewhere: Elsewhere, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]
    ) -> dict[str, object]:
        ahead = self._ahead
        taken = None if ahead is None else ahead.taken(stage, request, self._check)
        if taken is not None:
            self.say_once(f"{name}: built and scored ahead")
        self._patience.run(lambda: self._deps.folders.made(self._job_id, ()))  # the log, which goes on there
        if ahead is None:
            return elsewhere(name, stage, request, span, self._should_end, self._why_ended, lambda: None)
        try:
            result = elsewhere(name, stage, taken or request, span, self._should_end, self._why_ended, ahead.tend)
        except EngineError:
            ahead.used()
            raise
        ahead.used()  # not where this process stops: the stage goes on there, and reads it
        return result

    def foreseen(self, requests: Callable[[], Iterator[Mapping[str, object]]]) -> None:
        """Let idle workers begin what may be asked for."""
        if self._ahead is not None:
            self._ahead.foreseen(requests)

    def entered(self, stage: str, progress: float) -> None:
        """Note a new stage."""
        if progress >= self._progress:
            self.say_once(f"stage {stage}")
        self._note(stage, progress, at_once=True)

    def judging(self, outputs: Sequence[JudgedOutput]) -> None:
        """Note what the model's outputs are taken for."""
        taken = [as_object(json_from_value(one)) for one in taken_outputs(outputs)]
        self._patience.run(lambda: self._deps.store.record_outputs(self._job_id, taken))

    def noted(self, text: str) -> None:
        """Write a warning to the job's log, once."""
        logger.info("job %s: %s", self._job_id, text)  # the report has it among its notes
        self.say_once(f"warning: {text}")

    def searched(self, trials: Sequence[Mapping[str, object]], best: int | None) -> None:
        """Note the trials so far."""
        for trial in trials[self._trials :]:
            self.say(trial_line(trial) + (", the best so far" if trial.get("index") == best else ""))
        self._trials = max(self._trials, len(trials))
        self._patience.run(lambda: self._deps.store.record_trials(self._job_id, trials, best))

    def _run_with_patience(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        try:
            result = self._patience.run(lambda: self._run_in_child(name, stage, request, span))
        except StageCrashedError as error:
            self.say(f"warning: {stage} failed: {error.detail}")
            raise
        self._patience.run(lambda: self._made(result))
        # The engine records the step next. On a disk without room that would fail, and the step would run again.
        self._patience.run(self._check_room)
        if self._tenure.is_over():
            raise ServerStopping
        return result

    def _made(self, result: Mapping[str, object]) -> None:
        """Let other processes see the step's files, before it is recorded."""
        if not self._tenure.is_over():
            self._deps.folders.made(self._job_id, file_refs(result))

    def _check_room(self) -> None:
        if shutil.disk_usage(self._deps.settings.files_dir).free < _ROOM_BYTES:
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

    def part_in_child(self, stage: str, request: Mapping[str, object], on_progress: Callable[[float], None]) -> dict[str, object]:
        """Run a part of a stage, beside others in the job's folder; ``on_progress`` is told its progress, 0..1."""
        limits = replace(self._limits, is_alone=False)
        try:
            return self._child(stage, request, limits, on_progress)
        except StageCancelledError as error:
            raise self._why_ended() from error
        except Exception:
            self._deps.check_files()
            raise

    def beside_in_child(
        self,
        stage: str,
        request: Mapping[str, object],
        is_over: Callable[[], bool],
        *,
        is_charged: bool,
        lends_gpu: bool | None = None,
    ) -> dict[str, object]:
        """Run a stage that gives way, beside others in the job's folder, until it is over.

        Args:
            stage: Its name.
            request: What it reads.
            is_over: Asked again and again.
            is_charged: Whether what it uses is the tenant's; else it is nobody's.
            lends_gpu: Whether it may use the GPU of this machine though the job asked for none. None: as any stage here.

        Raises:
            StageCancelledError: It was ended.
        """
        limits = replace(self._limits, is_alone=False, is_charged=is_charged)
        if lends_gpu is not None:
            limits = replace(limits, opens_gpu=lends_gpu, is_gpu_lent=lends_gpu)
        return self._child(stage, request, limits, should_end=is_over)

    def _child(
        self,
        stage: str,
        request: Mapping[str, object],
        limits: StageLimits,
        on_progress: Callable[[float], None] = lambda fraction: None,
        should_end: Callable[[], bool] | None = None,
    ) -> dict[str, object]:
        return self._deps.run_child(
            stage,
            request,
            self._workspace,
            limits=limits,
            on_progress=lambda fraction, _message: on_progress(fraction),
            should_cancel=should_end or self._should_end,
        )

    def _in_parts(
        self, name: str, stage: str, request: Mapping[str, object], on_progress: Callable[[float], None]
    ) -> dict[str, object] | None:
        """Run a stage in parts, here and on idle workers, and put them together; None where it is not split."""
        split = self._deps.pipeline.splits.get(stage)
        if split is None or self._fan_out is None:
            return None
        begun = time.monotonic()

        def here(part: Mapping[str, object], told: Callable[[float], None]) -> Mapping[str, object]:
            return self.part_in_child(stage, part, told)

        found = self._fan_out(self._job_id, name, stage, request, split, here, on_progress, self._check)
        if found is None:
            return None
        self.say(f"{stage}: {in_words(found)}")
        answer = self._child(stage, split.joined(request, [part.result for part in found]), self._limits)
        return {**answer, "seconds": time.monotonic() - begun}

    def _check(self) -> None:
        if self._should_end():
            raise self._why_ended()

    def _run_in_child(self, name: str, stage: str, request: Mapping[str, object], span: tuple[float, float]) -> dict[str, object]:
        low, high = span
        self._deps.folders.ready(self._job_id, file_refs(request))

        def told(fraction: float) -> None:
            self._note(self._stage, low + (high - low) * fraction, at_once=False)

        def compute() -> dict[str, object]:
            begun = time.monotonic()
            result = self._in_parts(name, stage, request, told) or self._child(stage, request, self._limits, told)
            self.say(f"{stage}: took {time.monotonic() - begun:.1f} s")
            return result

        workspace = Workspace(self._workspace)

        def kept() -> Mapping[str, object]:
            cache = self._deps.cache
            return compute() if cache is None else cache.run(stage, request, workspace, compute)

        try:
            if self._shared is None:
                return dict(kept())
            return dict(self._shared.run(stage, request, workspace, kept, self._should_end))
        except StageCancelledError as error:
            raise self._why_ended() from error
        except Exception:
            self._deps.check_files()  # without its folder a stage fails in many ways: then it is not the stage's fault
            raise

    def _should_end(self) -> bool:
        now = time.monotonic()
        if self._tenure.is_over():
            return True
        if now - self._asked_at >= _ASK_SECONDS:
            self._asked_at = now
            with suppress(StorageError):  # asked again soon
                self._side_calls.run(self._ask)
        return self._state is not JobState.RUNNING or self._tenure.is_over()

    def _ask(self) -> None:
        self._state = self._deps.store.state(self._job_id)

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
            self._side_calls.run(lambda: self._deps.store.advance(self._job_id, stage, progress))


_ASK_SECONDS = 0.25
_NOTE_SECONDS = 0.25
_ROOM_BYTES = 64 * 2**20  # with more, a step's record surely fits
