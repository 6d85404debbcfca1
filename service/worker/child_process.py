"""The parent's half of a stage: the only place that starts processes.

A stage gets its request as JSON on stdin and answers with progress lines on stdout and a result file. The parent holds the deadline,
polls for a cancel, and leaves nothing behind: no process of the child's group, no scratch file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from calibration.errors import error_from_problem
from engine_builder.errors import EngineError, StageCancelledError, StageCrashedError, StageMemoryError, StageTimeoutError
from engine_builder.workspace.workspace import SCRATCH_PREFIX, Workspace, remove_tree
from service.worker.child_main import MEMORY_FIX, RESULT_NAME, Envelope, has_memory_sign, memory_detail

logger = logging.getLogger(__name__)

LOG_NAME = "log.txt"
LOG_LIMIT_BYTES = 4 * 2**20
POLL_SECONDS = 0.1
_EXIT_POLL_SECONDS = 0.005
_TAIL_BYTES = 8192
_CHUNK_BYTES = 65536
_MAX_READS_AT_END = 4
_MAX_RESULT_BYTES = 64 * 2**20
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT")
_IDLE = {"OPENBLAS_THREAD_TIMEOUT": "4"}  # numpy's threads sleep soon after a product; by default they spin on for tens of milliseconds
_KEPT_PREFIXES = ("LC_", "OMP_", "OPENBLAS_", "MKL_", "KMP_", "MALLOC_", "CUDA_", "NVIDIA_")


@dataclass(frozen=True, slots=True)
class StageLimits:
    """What a stage may use: memory in bytes, wall-clock time in seconds. Both above 0."""

    memory_bytes: int  # of address space; of resident memory, watched from outside, where stages open a GPU
    seconds: float
    opens_gpu: bool = False  # the job's engines run on this machine's GPU: CUDA reserves far more address space than it uses

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could run."""
        if self.memory_bytes <= 0 or self.seconds <= 0:
            raise ValueError(f"stage limits: found {self.memory_bytes} bytes and {self.seconds} seconds, expected both above 0")


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
    stages: str = "engine_builder.pipeline.stage_table",
) -> dict[str, object]:
    """Run a stage in a process of its own and return its result.

    The calling thread starts the child and waits for it: the child asks the kernel to be killed when that thread ends.

    Args:
        stage: The stage's name in the table.
        request: A JSON object.
        workspace: The job's folder; stderr is appended to its ``log.txt``. One stage at a time.
        limits: Memory and time. A stage that may open a GPU is ended when its process group is found to be over the limit.
        on_progress: Takes the fraction done of this stage (0..1, never less than before) and a line for the user.
        should_cancel: Polled every 0.1 s.
        stages: The module that holds the table ``STAGES``.

    Raises:
        OptimizerError: What the stage raised, with its fields; an ``EngineError`` with the ``seconds`` that it took.
        StageTimeoutError: It ran past its deadline.
        StageMemoryError: It needed more memory than its limit.
        StageCancelledError: ``should_cancel`` said so.
        StageCrashedError: It ended without a result.
    """
    folder = Workspace(workspace)
    folder.remove_scratch()
    if should_cancel():
        raise _cancelled(stage)
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=folder.root))
    try:
        envelope: Envelope = {
            "stage": stage,
            "request": dict(request),
            "stages": stages,
            "workspace": str(folder.root),
            "scratch": str(scratch),
            "memory_bytes": None if limits.opens_gpu else limits.memory_bytes,
            "parent_pid": os.getpid(),
        }
        kills_before = _kernel_kills()
        with _Log(folder.root / LOG_NAME) as log, tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(envelope, allow_nan=False).encode())
            stdin.seek(0)
            log.write(f"--- {stage}\n".encode())
            child: _Child | None = None
            try:
                with _signals_held():
                    child = _Child(stage, stdin, scratch, log, watched_bytes=limits.memory_bytes if limits.opens_gpu else None)
                status = child.wait(limits, on_progress, should_cancel)
            finally:
                if child is not None:  # a signal that was held comes out before ``wait`` begins
                    child.end()
        return _outcome(stage, scratch / RESULT_NAME, status, log.tail, killed_by_kernel=_kernel_kills() > kills_before)
    finally:
        remove_tree(scratch)


def _outcome(stage: str, result: Path, status: int, tail: bytes, *, killed_by_kernel: bool) -> dict[str, object]:
    if result.exists() and result.stat().st_size <= _MAX_RESULT_BYTES:
        outcome: dict[str, dict[str, object]] = json.loads(result.read_bytes())
        if "error" in outcome:
            raise error_from_problem(outcome["error"])
        return outcome["result"]
    if has_memory_sign(tail.decode(errors="replace")) or (status == -signal.SIGKILL and killed_by_kernel):
        raise StageMemoryError(memory_detail(stage), fix=MEMORY_FIX)
    how = f"was ended by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
    raise StageCrashedError(
        f"stage {stage} {how} before it had a result",
        fix="The job's log.txt has what it printed last. If the model is sound, report it; if memory was short, raise the limit.",
    )


class _Child:
    """One running child. Owned by the thread that made it; gone, with its whole group, when ``wait`` returns or raises."""

    def __init__(self, stage: str, stdin: IO[bytes], scratch: Path, log: _Log, *, watched_bytes: int | None) -> None:
        self._stage = stage
        self._watched_bytes = watched_bytes
        self._log = log
        self._lines = b""
        self._progress = 0.0
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service.worker.child_main", stage],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=scratch,
            env=_environment(scratch),
            start_new_session=True,
        )

    def wait(self, limits: StageLimits, on_progress: Callable[[float, str], None], should_cancel: Callable[[], bool]) -> int:
        """Return the exit status, negative for a signal."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            with selectors.DefaultSelector() as selector:
                for pipe in (self._process.stdout, self._process.stderr):
                    os.set_blocking(pipe.fileno(), False)
                    selector.register(pipe, selectors.EVENT_READ)
                while not self._has_ended():
                    self._read(selector, POLL_SECONDS, on_progress)
                    if should_cancel():
                        raise _cancelled(self._stage)
                    if self._watched_bytes is not None and resident_bytes(self._process.pid) > self._watched_bytes:
                        raise StageMemoryError(memory_detail(self._stage), fix=MEMORY_FIX)
                    if time.monotonic() - self._started > limits.seconds:
                        raise StageTimeoutError(
                            f"stage {self._stage} ran past its limit of {limits.seconds:g} seconds",
                            fix="Raise the time limit of a stage, or use a smaller model or fewer calibration samples.",
                        )
                self._kill_group()
                for _ in range(_MAX_READS_AT_END):  # what the pipes still hold; a process that left the group may keep them open
                    self._read(selector, 0, on_progress)
            return self._process.wait()
        finally:
            self.end()

    def end(self) -> None:
        """Kill what is left of the child and its group, and free what it held here. May be called twice."""
        self._kill_group()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _has_ended(self) -> bool:
        # Not reaped yet: its pid stays reserved, so killing its group cannot hit a stranger.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill_group(self) -> None:
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                logger.debug("stage %s: its group is gone already", self._stage)

    def _read(self, selector: selectors.BaseSelector, seconds: float, on_progress: Callable[[float, str], None]) -> None:
        if not selector.get_map():  # both pipes are at their end: only the exit is awaited
            time.sleep(min(seconds, _EXIT_POLL_SECONDS))
            return
        for key, _ in selector.select(seconds):
            pipe = cast("IO[bytes]", key.fileobj)
            data = os.read(key.fd, _CHUNK_BYTES)
            if not data:
                selector.unregister(pipe)
            elif pipe is self._process.stderr:
                self._log.write(data)
            else:
                self._take_lines(data, on_progress)

    def _take_lines(self, data: bytes, on_progress: Callable[[float, str], None]) -> None:
        *lines, rest = (self._lines + data).split(b"\n")
        self._lines = rest[:_CHUNK_BYTES]
        for line in lines:
            event = _event_from_line(line)
            if event is None:
                logger.warning("stage %s: progress line %r is not of the expected form", self._stage, line[:100])
                continue
            self._progress = max(self._progress, event[0])
            on_progress(self._progress, event[1])


class _Log:
    """The job's log: appended to, up to a limit. Keeps the last bytes, to tell how a child ended."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("ab", buffering=0)
        self._room = LOG_LIMIT_BYTES - self._stream.tell()
        self.tail = b""

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, data: bytes) -> None:
        """Append what fits; where the limit is reached, say so once."""
        self.tail = (self.tail + data)[-_TAIL_BYTES:]
        if self._room <= 0:
            return
        self._stream.write(data[: self._room])
        self._room -= len(data)
        if self._room <= 0:
            self._stream.write(f"\n--- cut here: log.txt is limited to {LOG_LIMIT_BYTES} bytes\n".encode())


def _event_from_line(line: bytes) -> tuple[float, str] | None:
    try:
        event = json.loads(line)
        return min(1.0, max(0.0, float(event["progress"]))), str(event["message"])
    except (ValueError, TypeError, KeyError):
        return None


def _environment(scratch: Path) -> dict[str, str]:
    """Return what the child may know: no keys, no database addresses; temporary files go to its scratch folder."""
    kept = {key: value for key, value in os.environ.items() if key in _KEPT_VARIABLES or key.startswith(_KEPT_PREFIXES)}
    source = Path(__file__).resolve().parents[1]
    if source.name not in ("site-packages", "dist-packages"):  # run from a checkout
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), kept.get("PYTHONPATH"))))
    # The plotting library would otherwise keep its font list in the user's home.
    return {**_IDLE, **kept, "TMPDIR": str(scratch), "MPLCONFIGDIR": str(scratch), "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back interrupts while a child is started: one that came in the middle would leave it to nobody, still writing its files."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread alone
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda came, frame: held.append(came)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for came in held:
        signal.raise_signal(came)


def resident_bytes(group: int) -> int:
    """Return the resident memory of a process group's processes together; pages that they share count for each."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    total += int((entry / "statm").read_text().split()[1]) * resource.getpagesize()
            except (OSError, ValueError, IndexError):  # it ended while it was looked at
                continue
    return total


def _kernel_kills() -> int:
    """Return how many processes this machine's kernel has killed for lack of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _cancelled(stage: str) -> StageCancelledError:
    return StageCancelledError(f"stage {stage} was cancelled", fix="Submit the job again if it was not meant to be cancelled.")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
