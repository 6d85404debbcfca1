"""The warm parent's half: a process that has imported what stages import, and forks one stage after the other.

``python -m service.worker.warm_main CONTROL STAGES`` takes requests from the socket ``CONTROL``, of which the server holds the other end.
So does a fork of a command that has imported the same (``become_parent``): what both have imported is in memory once.
A request is JSON with four open files: the stage's stdin, stdout and stderr, and its leash, a socket. On the leash the parent writes the
exit status once the stage has ended, and does not reap it: its id stays its own. When the other end of the leash is closed, the stage's
group is killed and reaped, and the leash closed here too. When the other end of ``CONTROL`` is closed, all stages are killed and the parent
ends.

No data of a user is ever read here: the request names a stage and a folder, the rest is read in the fork. A fork copies one thread only, so
this process must have no other, and it makes no session of a runtime. It says on ``CONTROL`` that it is ready, or why it cannot be, and
ends: a library may start a thread when it is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import io
import json
import logging
import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypedDict

from calibration.process.lazy_import import defer
from service.worker import child_main
from service.worker.child_main import ONNX_IR_FUNCTIONS
from service.worker.stage_process import NO_TELEMETRY, kill_group, scratch_environment

FILES = 4  # of a request: stdin, stdout, stderr, leash
MAX_MESSAGE = 65536
READY = "ready"  # what it says once it has imported
_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15
_STDERR = 2
HANDLED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})  # signals, by a command in its own way
_ENVIRONMENT_FIELDS = (47, 48)  # of /proc/self/stat behind the name: where the environment was put when the program was started
_THREAD_SECONDS = 1.0


class Request(TypedDict):
    """What the server asks for, as JSON."""

    stage: str
    scratch: str  # a folder


@dataclass(frozen=True, slots=True)
class _Running:
    """A stage that was forked and is not reaped."""

    pid: int
    watch: int  # a file that can be read once the process has ended
    leash: socket.socket


def main() -> None:
    """Import, then fork stages until the server is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    import_what_stages_import(sys.argv[2])
    threads = count_threads()
    if threads == 1:
        _serve(control)
    else:
        control.send(f"it has {threads} threads, and only one lives on in a fork".encode())


def become_parent(control: socket.socket, environment: Mapping[str, str], mask: Collection[int]) -> NoReturn:
    """Turn this fork of a command, which has imported what stages import, into a process like one that ``main`` runs in; it ends here.

    The command has one thread, and has read no data of a user.

    Args:
        control: Its end of the socket.
        environment: All that stages may know.
        mask: The signals that are to be held back; now those are, too, that a command handles.
    """
    try:
        os.setsid()
        for handled in HANDLED - {signal.SIGINT}:
            if callable(signal.getsignal(handled)):
                signal.signal(handled, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(_STDERR + 1):
            os.dup2(nothing, number)
        _close_files({control.fileno()})
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), errors="backslashreplace", write_through=True) for number in (1, 2)
        )
        logging.getLogger().handlers.clear()
        os.chdir("/")
        _forget_environment()
        os.environ.update(environment)
        known = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
        if not sys.flags.safe_path and sys.path[0] not in known:
            del sys.path[0]  # the folder that the command was called in, or that of its script
        _serve(control)
    finally:
        os._exit(1)


def import_what_stages_import(stages: str, *, for_one_job: bool = False) -> None:
    """Import the table of stages, and the libraries and modules that it names.

    Args:
        stages: The module that holds the table ``STAGES``; its ``LIBRARIES`` and ``TABLE``, where it has them, name modules to import too.
        for_one_job: Leave out the modules of stages that import much for themselves alone: all others would hold that, too.
    """
    before = dict(os.environ)
    gc.disable()  # imports leave nothing to collect, and looking for it takes a tenth of their time; the forks collect
    defer("sympy", ONNX_IR_FUNCTIONS)
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-") as folder:
        # The plotting library looks for its settings, and notes its fonts.
        os.environ.update(NO_TELEMETRY | scratch_environment(Path(folder)))
        importlib.import_module("engine_builder.workspace.workspace")
        table = importlib.import_module(stages)
        for module in getattr(table, "LIBRARIES", ()):
            importlib.import_module(module)
        for stage in getattr(table, "TABLE", ()):
            if not (for_one_job and stage.imports_much):
                importlib.import_module(stage.entry.partition(":")[0])
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(_THREAD_SECONDS)  # a timer of the plotting library, cancelled already
    gc.collect()
    gc.enable()
    gc.freeze()  # or the first collection in a fork would write to every page that it shares with this process


def count_threads() -> int:
    """Return how many threads this process has; numpy's end before the fork that is made here, and start again where they are needed."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return len(os.listdir("/proc/self/task"))


def _serve(control: socket.socket) -> NoReturn:
    """Fork stages until the server is gone."""
    os.close(os.pidfd_open(os.getpid()))  # an old kernel or a strict container has none: better found before the first stage
    _set_dumpable(0)  # no stage, which belongs to the same user, may look into this process or change it
    control.send(READY.encode())
    _Forker(control).serve()


class _Forker:
    """Holds what belongs to the stages that run."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: list[_Running] = []
        self._selector = selectors.DefaultSelector()

    def serve(self) -> NoReturn:
        """Do what is asked for until the server is gone."""
        self._selector.register(self._control, selectors.EVENT_READ, self._take_request)
        while True:
            for key, _ in self._selector.select()[:1]:  # one at a time: it may take away what the others are about
                key.data()

    def _take_request(self) -> None:
        message, files, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, FILES)
        if not message:
            for running in self._running:
                self._end(running)
            os._exit(0)
        request: Request = json.loads(message)
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(request, files, parent_pid)
        for file in files[:-1]:
            os.close(file)
        running = _Running(pid, os.pidfd_open(pid), socket.socket(fileno=files[-1]))
        self._running.append(running)
        self._selector.register(running.watch, selectors.EVENT_READ, functools.partial(self._tell, running))
        self._selector.register(running.leash, selectors.EVENT_READ, functools.partial(self._let_go, running))

    def _tell(self, running: _Running) -> None:
        """The stage has ended: say how, and leave it unreaped until the server has let go of it."""
        self._selector.unregister(running.watch)
        _send_status(running)

    def _let_go(self, running: _Running) -> None:
        """The server has let go of the stage."""
        self._selector.unregister(running.leash)
        if running.watch in self._selector.get_map():
            self._selector.unregister(running.watch)
            kill_group(running.pid)
            _send_status(running)
        self._end(running)
        self._running.remove(running)

    def _end(self, running: _Running) -> None:
        kill_group(running.pid)
        os.waitpid(running.pid, 0)
        os.close(running.watch)
        running.leash.close()

    def _become(self, request: Request, files: list[int], parent_pid: int) -> NoReturn:
        """Turn this fork into the stage's process, which holds nothing of the server or of other stages."""
        try:
            _set_dumpable(1)
            os.setsid()
            self._selector.close()
            self._control.close()
            for other in self._running:
                other.leash.close()
            for number, file in enumerate(files[:-1]):
                os.dup2(file, number)
            _close_files(())
            scratch = Path(request["scratch"])
            os.chdir(scratch)
            os.environ.update(scratch_environment(scratch))
            tempfile.tempdir = None  # found anew, in the environment
            ctypes.CDLL(None).prctl(_PR_SET_NAME, f"stage {request['stage']}".encode(), 0, 0, 0)
            child_main.main(parent_pid)
        finally:
            os._exit(1)  # never back into the loop of the parent


def _send_status(running: _Running) -> None:
    ended = os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None  # without WNOHANG it waits
    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    try:
        running.leash.send(str(status).encode())
    except BrokenPipeError:
        return  # the server is gone, or does not care


def _set_dumpable(value: int) -> None:
    """Say whether other processes of this user, without further rights, may trace this one."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, value, 0, 0, 0)


def _close_files(kept: Collection[int]) -> None:
    """Close every file of this process but the standard ones and those that are kept."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _STDERR and int(name) not in kept:
            with contextlib.suppress(OSError):  # the folder itself was open while it was listed
                os.close(int(name))


def _forget_environment() -> None:
    """Remove all variables of this process, those too that the kernel shows to others of the same user: a command's may hold keys."""
    os.environ.clear()
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    start, end = (int(fields[index]) for index in _ENVIRONMENT_FIELDS)
    ctypes.memset(start, 0, end - start)


if __name__ == "__main__":
    main()
