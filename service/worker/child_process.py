"""The half of a stage that waits for it: deadline, cancel, progress, log, and what became of it.

A stage gets its request as JSON on stdin and answers with progress lines on stdout and a result file. Whoever waits holds the deadline,
polls for a cancel, and leaves nothing behind: no process of the child's group, no scratch file. The process is forked from the warm parent
where there is one, or starts as a new interpreter.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from calibration.errors import OptimizerError, error_from_problem
from engine_builder.errors import (
    EngineError,
    StageCancelledError,
    StageCrashedError,
    StageMemoryError,
    StageStorageError,
    StageTimeoutError,
)
from engine_builder.workspace.workspace import SCRATCH_PREFIX, Workspace
from service import disk_faults
from service.worker.child_main import MEMORY_FIX, RESULT_NAME, Envelope, has_memory_sign, memory_detail
from service.worker.process_memory import kernel_kills, resident_bytes
from service.worker.stage_log import LOG_NAME, StageLog
from service.worker.stage_process import SpawnedProcess, StageProcess, WarmParentLostError, scratch_folder, signals_held
from service.worker.warm_parent import WarmParent

logger = logging.getLogger(__name__)

STAGE_TABLE = "engine_builder.pipeline.stage_table"
POLL_SECONDS = 0.1
_LEAST_FORK_BYTES = 2 * 2**30
_EXIT_POLL_SECONDS = 0.005
_CHUNK_BYTES = 65536
_MAX_READS_AT_END = 4
_MAX_RESULT_BYTES = 64 * 2**20
_SIGNAL_SECONDS = 1.0
_BESIDE_PREFIX = "beside-"  # of the scratch folder of a stage beside which others run, which may be alone and remove what is left
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})


@dataclass(frozen=True, slots=True)
class StageLimits:
    """What a stage may use: memory in bytes, wall-clock time in seconds. All above 0."""

    memory_bytes: int  # of address space; of resident memory, watched from outside, where stages open a GPU
    seconds: float
    opens_gpu: bool = False  # the job's engines run on this machine's GPU: CUDA reserves far more address space than it uses
    cpu_seconds: int | None = None  # of all its threads together; None: not limited
    file_bytes: int | None = None  # of the largest file that it writes; None: not limited
    is_alone: bool = True  # in its workspace: what a killed stage left there is removed first, but for what is of one that is not alone
    is_charged: bool = True  # to the tenant, where tenants are
    is_gpu_lent: bool = False  # the GPU that it opens is idle, and its time counts as a processor's

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could run."""
        if min(self.memory_bytes, self.seconds, self.cpu_seconds or 1, self.file_bytes or 1) <= 0:
            raise ValueError(f"stage limits: found {self}, expected numbers above 0")


@dataclass(frozen=True, slots=True)
class Listener:
    """What a stage may ask of this process while it runs."""

    socket: socket.socket
    answer: Callable[[], None]  # called, by whoever waits for the stage, when somebody connects; what it raises ends the stage


@contextlib.contextmanager
def _failures_timed() -> Iterator[None]:
    """Note in an ``EngineError`` that comes out how many seconds went by."""
    started = time.monotonic()
    try:
        yield
    except EngineError as error:
        error.seconds = time.monotonic() - started
        raise


@_failures_timed()
def run_in_child(
    stage: str,
    request: Mapping[str, object],
    workspace: Path,
    *,
    limits: StageLimits,
    on_progress: Callable[[float, str], None],
    should_cancel: Callable[[], bool],
    stages: str = STAGE_TABLE,
    parent: WarmParent | None = None,
    listener: Listener | None = None,
) -> dict[str, object]:
    """Run a stage in a process of its own and return its result.

    Without a warm parent the calling thread starts the child and waits for it: the child asks the kernel to be killed when that thread
    ends. A stage that was ended from outside runs once more, in a new interpreter: by a signal that it does not give itself (SIGKILL as the
    kernel sends it where memory is short, SIGTERM, SIGHUP, SIGINT), or because its warm parent died.

    Args:
        stage: The stage's name in the table.
        request: A JSON object.
        workspace: The job's folder; stderr is appended to its ``log.txt``. One stage at a time, unless ``limits`` say otherwise.
        limits: Memory and time. A stage that may open a GPU is ended when its process group is found to be over the limit.
        on_progress: Takes the fraction done of this stage (0..1, never less than before) and a line for the user.
        should_cancel: Polled every 0.1 s.
        stages: The module that holds the table ``STAGES``.
        parent: Forks the stage, unless it may open a GPU (the driver's libraries are opened in a new interpreter only) or has a limit below
            2 GiB, of which the parent's addresses would take too much.
        listener: Answers what the stage asks.

    Raises:
        OptimizerError: What the stage raised, with its fields; an ``EngineError`` with the ``seconds`` that it took.
        StageTimeoutError: It ran past its deadline.
        StageMemoryError: It needed more memory than its limit.
        StageCancelledError: ``should_cancel`` said so.
        StageCrashedError: It ended without a result.
        StageStorageError: The disk is full, read-only or failing.
    """
    task = _Task(stage, request, Workspace(workspace), limits, _rising(on_progress), should_cancel, stages, time.monotonic(), listener)
    is_forked = parent is not None and not limits.opens_gpu and limits.memory_bytes >= _LEAST_FORK_BYTES
    try:
        return _run(task, parent if is_forked else None)
    except (WarmParentLostError, _EndedFromOutsideError) as ended:
        logger.warning("stage %s: %s; it runs once more, in a new interpreter", stage, ended)
        _wait_for_own_end(task)
    try:
        return _run(task, None)
    except _EndedFromOutsideError as ended:
        raise ended.error from None


@dataclass(frozen=True, slots=True)
class _Task:
    """What ``run_in_child`` was asked for."""

    stage: str
    request: Mapping[str, object]
    workspace: Workspace
    limits: StageLimits
    on_progress: Callable[[float, str], None]
    should_cancel: Callable[[], bool]
    stages: str
    started: float  # by the monotonic clock, seconds
    listener: Listener | None


class _EndedFromOutsideError(Exception):
    """Somebody else ended the stage's process; ``error`` is what that is called if it counts."""

    def __init__(self, signal_name: str, error: OptimizerError) -> None:
        super().__init__(f"its process was ended from outside by {signal_name}")
        self.error = error


def _wait_for_own_end(task: _Task) -> None:
    """Give a stop that reached the child before us time to reach us too: whoever stops a service may signal its whole process tree.

    Raises:
        StageCancelledError: It has.
    """
    until = time.monotonic() + _SIGNAL_SECONDS
    while time.monotonic() < until:
        if task.should_cancel():
            raise _cancelled(task.stage)
        time.sleep(POLL_SECONDS)


def _run(task: _Task, parent: WarmParent | None) -> dict[str, object]:
    """Run it once, in a fork of the parent or in a new interpreter."""
    folder = task.workspace
    if task.limits.is_alone:
        folder.remove_scratch()
    if task.should_cancel():
        raise _cancelled(task.stage)
    with scratch_folder(folder.root, SCRATCH_PREFIX if task.limits.is_alone else _BESIDE_PREFIX) as scratch:
        envelope: Envelope = {
            "stage": task.stage,
            "request": dict(task.request),
            "stages": task.stages,
            "workspace": str(folder.root),
            "scratch": str(scratch),
            "memory_bytes": None if task.limits.opens_gpu else task.limits.memory_bytes,
            "cpu_seconds": task.limits.cpu_seconds,
            "file_bytes": task.limits.file_bytes,
            "parent_pid": os.getpid(),
        }
        kills_before = kernel_kills()
        with StageLog(folder.root / LOG_NAME) as log, tempfile.TemporaryFile(dir=scratch) as stdin:
            stdin.write(json.dumps(envelope, allow_nan=False).encode())
            stdin.seek(0)
            log.write(f"--- {task.stage}\n".encode())
            child: _Child | None = None
            try:
                with signals_held():
                    process = SpawnedProcess(task.stage, stdin, scratch) if parent is None else parent.fork(task.stage, stdin, scratch)
                    child = _Child(task, process, log)
                status = child.wait()
            finally:
                if child is not None:  # a signal that was held comes out before ``wait`` begins
                    child.end()
        try:
            return _outcome(task.stage, scratch / RESULT_NAME, status, log.tail, killed_by_kernel=kernel_kills() > kills_before)
        except (StageMemoryError, StageCrashedError) as error:
            # The kernel ends what is past its processor time by SIGKILL too.
            if -status in _FROM_OUTSIDE and task.limits.cpu_seconds is None:
                raise _EndedFromOutsideError(_signal_name(-status), error) from None
            raise


def _rising(on_progress: Callable[[float, str], None]) -> Callable[[float, str], None]:
    """Return the same, told of no fraction lower than one before."""
    highest = 0.0

    def report(fraction: float, message: str) -> None:
        nonlocal highest
        highest = max(highest, fraction)
        on_progress(highest, message)

    return report


def _outcome(stage: str, result: Path, status: int, tail: bytes, *, killed_by_kernel: bool) -> dict[str, object]:
    if result.exists() and result.stat().st_size <= _MAX_RESULT_BYTES:
        outcome: dict[str, dict[str, object]] = json.loads(result.read_bytes())
        if "error" in outcome:
            raise error_from_problem(outcome["error"])
        return outcome["result"]
    if has_memory_sign(tail.decode(errors="replace")) or (status == -signal.SIGKILL and killed_by_kernel):
        raise StageMemoryError(memory_detail(stage), fix=MEMORY_FIX)
    if status == disk_faults.EXIT_STATUS:
        raise StageStorageError(f"stage {stage}: the disk takes not even its result", fix=disk_faults.FIX)
    how = f"was ended by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
    raise StageCrashedError(
        f"stage {stage} {how} before it had a result",
        fix="The job's log.txt has what it printed last. If the model is sound, report it; if memory was short, raise the limit.",
    )


class _Child:
    """One running child. Owned by the thread that made it; gone, with its whole group, when ``wait`` returns or raises."""

    def __init__(self, task: _Task, process: StageProcess, log: StageLog) -> None:
        self._task = task
        self._process = process
        self._log = log
        self._lines = b""

    def wait(self) -> int:
        """Return the exit status, negative for a signal."""
        task, process = self._task, self._process
        try:
            with selectors.DefaultSelector() as selector:
                for pipe in (process.stdout, process.stderr):
                    os.set_blocking(pipe.fileno(), False)
                    selector.register(pipe, selectors.EVENT_READ)
                if task.listener is not None:
                    selector.register(task.listener.socket, selectors.EVENT_READ, task.listener.answer)
                while not process.has_ended():
                    self._read(selector, POLL_SECONDS)
                    if task.should_cancel():
                        raise _cancelled(task.stage)
                    if task.limits.opens_gpu and process.group is not None and resident_bytes(process.group) > task.limits.memory_bytes:
                        raise StageMemoryError(memory_detail(task.stage), fix=MEMORY_FIX)
                    if time.monotonic() - task.started > task.limits.seconds:
                        raise StageTimeoutError(
                            f"stage {task.stage} ran past its limit of {task.limits.seconds:g} seconds",
                            fix="Raise the time limit of a stage, or use a smaller model or fewer calibration samples.",
                        )
                process.kill_group()
                for _ in range(_MAX_READS_AT_END):  # what the pipes still hold; a process that left the group may keep them open
                    self._read(selector, 0)
            return process.wait()
        finally:
            self.end()

    def end(self) -> None:
        """Kill what is left of the child and its group, and free what it held here. May be called twice."""
        self._process.kill_group()
        with contextlib.suppress(WarmParentLostError):  # the kernel has killed it then
            self._process.wait()
        self._process.stdout.close()
        self._process.stderr.close()

    def _read(self, selector: selectors.BaseSelector, seconds: float) -> None:
        if len(selector.get_map()) <= (self._task.listener is not None):  # both pipes are at their end: only the exit is awaited
            seconds = min(seconds, _EXIT_POLL_SECONDS)
        for key, _ in selector.select(seconds):
            if key.data is not None:
                key.data()
                continue
            pipe = cast("IO[bytes]", key.fileobj)
            data = os.read(key.fd, _CHUNK_BYTES)
            if not data:
                selector.unregister(pipe)
            elif pipe is self._process.stderr:
                self._log.write(data)
            else:
                self._take_lines(data)

    def _take_lines(self, data: bytes) -> None:
        *lines, rest = (self._lines + data).split(b"\n")
        self._lines = rest[:_CHUNK_BYTES]
        for line in lines:
            event = _event_from_line(line)
            if event is None:
                logger.warning("stage %s: progress line %r is not of the expected form", self._task.stage, line[:100])
                continue
            self._task.on_progress(*event)


def _event_from_line(line: bytes) -> tuple[float, str] | None:
    try:
        event = json.loads(line)
        return min(1.0, max(0.0, float(event["progress"]))), str(event["message"])
    except (ValueError, TypeError, KeyError):
        return None


def _cancelled(stage: str) -> StageCancelledError:
    return StageCancelledError(f"stage {stage} was cancelled", fix="Submit the job again if it was not meant to be cancelled.")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
