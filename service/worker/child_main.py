"""The child's half of a stage: limits and isolation first, then the stage, then its result in a file.

``python -m service.worker.child_main STAGE``, or a fork of the warm parent (``warm_main``), reads one JSON object from stdin (see
``child_process``), writes progress as JSON lines to the stdout it was started with, and renames its result into place. A process of its own
imports only light modules before the limits are set.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import json
import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypedDict

from service import disk_faults

logger = logging.getLogger(__name__)

RESULT_NAME = "result.json"
MEMORY_SIGNS = (
    "bad_alloc",
    "bad allocation",
    "MemoryError",
    "Failed to allocate memory",
    "Cannot allocate memory",
    "Unable to allocate",
    "failed to map segment",
    "Memory allocation still failed",
    "failed to allocate memory",
    "can't start new thread",  # no address space for its stack
    "pthread_create failed",
    "out of memory",
)
MEMORY_FIX = "Raise the memory limit, or use a smaller model, a smaller batch_size or fewer calibration samples."
UNEXPECTED_FIX = "This is a fault of the service, not of the input: report it with the job's log.txt, which has the details."
ONNX_IR_FUNCTIONS = ("Max", "Min", "floor", "sqrt", "Mod", "Abs", "sign", "ceiling")  # of sympy: onnx_ir keeps them in a table
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MAX_DETAIL = 500
_MAX_READ = 65536  # of a message that is not ours


class Envelope(TypedDict):
    """What the parent writes to a child's stdin, as JSON."""

    stage: str  # its name in the table
    request: dict[str, object]
    stages: str  # the module that holds the table ``STAGES``
    workspace: str  # a folder
    scratch: str  # a folder
    memory_bytes: int | None  # of address space; None: not limited from inside
    cpu_seconds: int | None  # None: not limited
    file_bytes: int | None  # of one file that it writes; None: not limited
    parent_pid: int  # of a process of its own; a fork knows whose it is


def main(parent_pid: int | None = None) -> NoReturn:
    """Run the stage that stdin describes and end the process without the interpreter's teardown.

    Args:
        parent_pid: The process that this one is a fork of and dies with; that of the envelope by default.
    """
    if parent_pid is not None:  # before anything is read: it may be dead already
        _die_with_parent(parent_pid)
    envelope: Envelope = json.loads(sys.stdin.buffer.read())
    parent_pid = envelope["parent_pid"] if parent_pid is None else parent_pid
    _die_with_parent(parent_pid)
    os.register_at_fork(after_in_child=_ask_for_death_signal)
    workspace, scratch = Path(envelope["workspace"]), Path(envelope["scratch"])
    report = _protected_stdout()
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    _leave_network(workspace)
    _die_with_parent(parent_pid)  # again: the kernel may forget it when the namespace changes
    outcome: dict[str, object]
    try:
        _limit_memory(envelope["memory_bytes"])
        _limit(resource.RLIMIT_CPU, envelope["cpu_seconds"])
        _limit(resource.RLIMIT_FSIZE, envelope["file_bytes"])
        outcome = {"result": _run(envelope, workspace, scratch, report)}
        encoded = _encoded(outcome)
    except BaseException as exc:  # the process boundary: everything becomes an error object, the trace goes to log.txt
        encoded = _encoded({"error": _problem(exc, envelope["stage"], workspace)})
    unfinished = scratch / (RESULT_NAME + ".part")
    try:
        unfinished.write_bytes(encoded)
        unfinished.replace(scratch / RESULT_NAME)
    except OSError as exc:
        if not disk_faults.is_storage_fault(exc):
            raise
        os._exit(disk_faults.EXIT_STATUS)
    sys.stderr.flush()
    # Teardown of native libraries can crash or hang; the result is safe, so there is nothing to wait for.
    os._exit(0)


def has_memory_sign(text: str) -> bool:
    """Whether an error text says that an allocation failed."""
    return any(sign in text for sign in MEMORY_SIGNS)


def _run(envelope: Envelope, workspace: Path, scratch: Path, report: Callable[[float, str], None]) -> object:
    from calibration.process.lazy_import import defer
    from engine_builder.workspace.workspace import StageContext, Workspace  # heavy imports only under the memory limit

    defer("sympy", ONNX_IR_FUNCTIONS)
    stages = importlib.import_module(envelope["stages"]).STAGES
    context = StageContext(workspace=Workspace(workspace, temporary=scratch), scratch=scratch, progress=report)
    return stages[envelope["stage"]](envelope["request"], context)


def _encoded(outcome: Mapping[str, object]) -> bytes:
    result = outcome.get("result", {})
    if not isinstance(result, Mapping):
        raise TypeError(f"result of the stage: found {type(result).__name__}, expected a JSON object")
    return json.dumps(outcome, allow_nan=False).encode()


def _problem(exc: BaseException, stage: str, workspace: Path) -> dict[str, str | int]:
    from calibration.errors import OptimizerError
    from calibration.plain_text import folders_to_hide
    from engine_builder.errors import EngineError, StageError, StageMemoryError, StageStorageError

    hidden = folders_to_hide(workspace)
    if isinstance(exc, StageError):
        return exc.problem(hidden)
    causes = [link for link in _chain(exc) if not isinstance(link, OptimizerError)]
    if any(isinstance(cause, MemoryError) or has_memory_sign(str(cause)) for cause in causes):
        _free_for_report(exc)
        return StageMemoryError(memory_detail(stage), fix=MEMORY_FIX).problem()
    if fault := next((cause for cause in causes if disk_faults.is_storage_fault(cause)), None):
        traceback.print_exception(exc)
        return StageStorageError(f"stage {stage}: {_one_line(fault)}", fix=disk_faults.FIX).problem(hidden)
    if isinstance(exc, OptimizerError):
        return exc.problem(hidden)
    traceback.print_exception(exc)
    return EngineError(f"stage {stage} failed: {type(exc).__name__}: {_one_line(exc)}".rstrip(": "), fix=UNEXPECTED_FIX).problem(hidden)


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc)[:_MAX_READ].split("Stacktrace:")[0].split())[:_MAX_DETAIL]


def memory_detail(stage: str) -> str:
    """Return what an out-of-memory error says about a stage."""
    return f"stage {stage} needed more memory than its limit"


def _chain(exc: BaseException) -> tuple[BaseException, ...]:
    links: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return tuple(links)


def _free_for_report(exc: BaseException) -> None:
    """Let go of the frames' arrays: without room the report itself would fail."""
    for link in _chain(exc):
        traceback.clear_frames(link.__traceback__)
    gc.collect()
    traceback.print_exception(exc)


def _protected_stdout() -> Callable[[float, str], None]:
    """Keep the real stdout for progress lines and send whatever else is printed, natively too, to stderr."""
    private = os.dup(1)
    os.set_inheritable(private, False)
    os.dup2(2, 1)

    def report(fraction: float, message: str) -> None:
        line = json.dumps({"progress": min(1.0, max(0.0, float(fraction))), "message": message[:_MAX_DETAIL]})
        os.write(private, line.encode() + b"\n")

    return report


def _die_with_parent(parent_pid: int) -> None:
    _ask_for_death_signal()
    if os.getppid() != parent_pid:  # it died before the signal was asked for
        os._exit(1)


def _ask_for_death_signal() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _limit(which: int, most: int | None) -> None:
    """Set a limit of the kernel's for this process, for good; a lower one that it has from its parent stays."""
    if most is not None:
        _, hard = resource.getrlimit(which)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


def _limit_memory(memory_bytes: int | None) -> None:
    """Limit the address space; with None the parent watches the resident memory instead."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes is None:
        return
    if sys.platform == "linux":
        _limit(resource.RLIMIT_AS, memory_bytes)
    else:
        logger.info("memory is not limited on %s", sys.platform)


def _leave_network(workspace: Path) -> None:
    """Move to a network namespace without interfaces, where the platform allows it. Must come before the first thread."""
    if sys.platform != "linux":
        logger.info("network is not closed on %s", sys.platform)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    # A new user namespace keeps access to our own files only, so the workspace must be ours.
    uid, gid = os.geteuid(), os.getegid()
    if workspace.stat().st_uid == uid and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        except OSError as exc:
            logger.info("user ids are not mapped in the stage's namespace: %s", exc)
        return
    logger.info("network is not closed: %s", os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
