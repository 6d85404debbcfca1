"""The server's half of the warm parent: starts it, asks it for stages, and starts it again when it is gone.

It is a process that is started anew, so that nothing of a server is in it. That of a command may be a fork of the command's own process:
what both import is imported once then, and in memory once. See ``warm_main`` for what the two tell each other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from service.worker.stage_process import StageProcess, WarmParentLostError, stage_environment
from service.worker.warm_main import HANDLED, MAX_MESSAGE, READY, Request, become_parent, count_threads, import_what_stages_import

logger = logging.getLogger(__name__)

_END_SECONDS = 5.0
_POLL_SECONDS = 0.002


class WarmParent:
    """A process that has imported what stages import, and from which they are forked; for any thread. Whoever made it closes it.

    It costs one import and its memory; each stage then begins at once. Only where the kernel is Linux: elsewhere, and where a library keeps
    a thread of its own, ``fork`` says so every time, and stages are started one by one.
    """

    def __init__(self, stages: str, *, forks_itself: bool = False) -> None:
        """Start nothing yet.

        Args:
            stages: The module that holds the table ``STAGES``; its ``LIBRARIES`` and ``TABLE``, where it has them, name modules to import
                too.
            forks_itself: Whether the first process may be a fork of this one, made by ``start``, if that has one thread: for a command
                that has not read any data yet. ``start`` then imports what stages import.
        """
        self._stages = stages
        self._forks_itself = forks_itself
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._is_closed = False
        self._is_unfit = sys.platform != "linux"

    def start(self) -> None:
        """Begin to import, in the background; in this process, where it forks itself."""
        with self._lock, contextlib.suppress(WarmParentLostError):
            if self._forks_itself and not (self._is_closed or self._is_unfit) and self._process is None:
                self._process = _forked(self._stages, _setting())
            self._fit_process()

    def fork(self, stage: str, stdin: IO[bytes], scratch: Path) -> StageProcess:
        """Return a new process of a stage.

        Args:
            stage: Its name.
            stdin: The file that it reads; a duplicate is handed on.
            scratch: The folder that it works in.

        Raises:
            WarmParentLostError: There is no warm parent to be had.
        """
        with self._lock:
            process = self._fit_process()
            try:
                return ForkedProcess(process.control, stage, stdin, scratch)
            except WarmParentLostError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.popen.wait(_END_SECONDS)  # it has let go of its socket: it is about to end
                    self._note_its_end(process)
                raise

    @property
    def pid(self) -> int | None:
        """The process's id; None where none runs."""
        with self._lock:
            return None if self._process is None or self._process.popen.poll() is not None else self._process.popen.pid

    def close(self) -> None:
        """End the process and every stage that was forked from it. May be called again."""
        with self._lock:
            self._is_closed = True
            self._end()

    def _fit_process(self) -> _Process:
        """Return a process that lives and is as stages would find it if they were started now."""
        if self._process is not None and self._process.popen.poll() is not None:
            self._note_its_end(self._process)
        if self._is_closed or self._is_unfit:
            raise WarmParentLostError("there is no warm parent")
        setting = _setting()
        if self._process is not None and self._process.setting != setting:
            self._end()
        if self._process is None:
            self._process = _started(self._stages, setting)
        return self._process

    def _note_its_end(self, process: _Process) -> None:
        said = _messages(process.control)
        self._is_unfit = READY not in said  # another one would not come further
        reason = next((message for message in said if message != READY), f"it ended with status {process.popen.returncode}")
        then = "stages are started one by one" if self._is_unfit else "it starts again"
        logger.warning("the parent of stages is gone: %s; %s", reason, then)
        self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.control.close()  # which it takes for its end
        try:
            self._process.popen.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.popen.kill()
            self._process.popen.wait()
        self._process = None


@dataclass(frozen=True, slots=True)
class _Setting:
    """What a process has from the one that starts it."""

    environment: Mapping[str, str]
    processors: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Process:
    """A started parent."""

    popen: subprocess.Popen[bytes] | _Fork
    control: socket.socket
    setting: _Setting


class _Fork:
    """A fork of this process, with what of ``subprocess.Popen`` is asked for here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("fork", timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class ForkedProcess:
    """A stage that the warm parent forked. It dies when either this process or the parent does."""

    def __init__(self, control: socket.socket, stage: str, stdin: IO[bytes], scratch: Path) -> None:
        """Ask for it; it begins when the parent has imported what it imports.

        Args:
            control: The socket of the parent.
            stage: The stage's name.
            stdin: The file that it reads.
            scratch: The folder that it works in.

        Raises:
            WarmParentLostError: The parent is gone.
        """
        request: Request = {"stage": stage, "scratch": str(scratch)}
        out, its_out = os.pipe()
        err, its_err = os.pipe()
        self._leash, its_leash = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stdout: IO[bytes] = os.fdopen(out, "rb", buffering=0)
        self.stderr: IO[bytes] = os.fdopen(err, "rb", buffering=0)
        try:
            socket.send_fds(control, [json.dumps(request).encode()], [stdin.fileno(), its_out, its_err, its_leash.fileno()])
        except OSError as exc:
            self.stdout.close()
            self.stderr.close()
            self._leash.close()
            raise WarmParentLostError(f"the parent takes no request: {exc.strerror}") from exc
        finally:
            os.close(its_out)
            os.close(its_err)
            its_leash.close()
        self._status: int | None = None
        self._is_let_go = False

    @property
    def group(self) -> None:
        """Not known here."""
        return

    def has_ended(self) -> bool:
        """Whether the parent has said that it ended."""
        return self._status is not None or self._take_status(socket.MSG_DONTWAIT)

    def kill_group(self) -> None:
        """Let go of it: the parent kills its group and reaps it."""
        if not self._is_let_go:
            self._is_let_go = True
            with contextlib.suppress(OSError):  # the parent is gone: ``wait`` finds that out
                self._leash.shutdown(socket.SHUT_WR)

    def wait(self) -> int:
        """Return the exit status that the parent tells, once it has reaped the stage."""
        try:
            if self._status is None:
                self._take_status(0)
            with contextlib.suppress(OSError):
                self._leash.recv(MAX_MESSAGE)  # nothing: the end, once the group is killed and reaped
        finally:
            self._leash.close()
        assert self._status is not None
        return self._status

    def _take_status(self, flags: int) -> bool:
        try:
            message = self._leash.recv(MAX_MESSAGE, flags)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise WarmParentLostError(f"the parent is gone: {exc.strerror}") from exc
        if not message:
            raise WarmParentLostError("the parent is gone")
        self._status = int(message)
        return True


def _setting() -> _Setting:
    return _Setting(stage_environment(), frozenset(os.sched_getaffinity(0)))


def _forked(stages: str, setting: _Setting) -> _Process | None:
    """Import what stages import, and fork this process; None where it has other threads, and nothing is done then."""
    if threading.active_count() > 1:
        return None
    import_what_stages_import(stages, for_one_job=True)
    if count_threads() > 1:
        return None
    control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its_control:
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # by this process in its own way, which is not the fork's
        try:
            pid = os.fork()
            if pid == 0:
                become_parent(its_control, setting.environment, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Process(_Fork(pid), control, setting)


def _started(stages: str, setting: _Setting) -> _Process:
    control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its_control:
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "service.worker.warm_main", str(its_control.fileno()), stages],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=setting.environment,
            start_new_session=True,
            pass_fds=(its_control.fileno(),),
        )
    return _Process(popen, control, setting)


def _messages(control: socket.socket) -> list[str]:
    """Return what a process that has ended has left to read."""
    found: list[str] = []
    while True:
        try:
            message = control.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
        except ConnectionResetError:  # told once, before what there is to read, if it left a request unread
            continue
        except BlockingIOError:  # a fork that is about to die with its parent holds the other end
            return found
        if not message:
            return found
        found.append(message.decode())
