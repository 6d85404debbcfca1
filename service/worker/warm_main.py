"""The warm parent's half: a process that has imported what stages import, and forks one stage after the other.

``python -m service.worker.warm_main CONTROL STAGES`` takes requests from the socket ``CONTROL``, of which the server holds the other end.
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
import json
import os
import selectors
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypedDict

from calibration.process.lazy_import import defer
from service.worker import child_main
from service.worker.child_main import ONNX_IR_FUNCTIONS
from service.worker.stage_process import kill_group, scratch_environment

FILES = 4  # of a request: stdin, stdout, stderr, leash
MAX_MESSAGE = 65536
READY = "ready"  # what it says once it has imported
_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15
_STDERR = 2
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
    gc.disable()  # imports leave nothing to collect, and looking for it takes a tenth of their time; the forks collect
    _import_what_stages_import(sys.argv[2])
    _fork_once()
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        control.send(f"it has {threads} threads, and only one lives on in a fork".encode())
        return
    os.close(os.pidfd_open(os.getpid()))  # an old kernel or a strict container has none: better found before the first stage
    _set_dumpable(0)  # no stage, which belongs to the same user, may look into this process or change it
    control.send(READY.encode())
    gc.collect()
    gc.enable()
    gc.freeze()  # or the first collection in a fork would write to every page that it shares with this process
    _Forker(control).serve()


class _Forker:
    """Holds what belongs to the stages that run."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: list[_Running] = []
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
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
            for name in os.listdir("/proc/self/fd"):
                if int(name) > _STDERR:
                    with contextlib.suppress(OSError):  # the folder itself was open while it was listed
                        os.close(int(name))
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


def _import_what_stages_import(stages: str) -> None:
    """Import the table of stages, and the libraries and modules that it names."""
    defer("sympy", ONNX_IR_FUNCTIONS)
    with tempfile.TemporaryDirectory(prefix="onnx-trt-optimizer-") as folder:
        os.environ.update(scratch_environment(Path(folder)))  # the plotting library looks for its settings, and notes its fonts
        importlib.import_module("engine_builder.workspace.workspace")
        table = importlib.import_module(stages)
        modules = (stage.entry.partition(":")[0] for stage in getattr(table, "TABLE", ()))
        for module in (*getattr(table, "LIBRARIES", ()), *modules):
            importlib.import_module(module)
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(_THREAD_SECONDS)  # a timer of the plotting library, cancelled already


def _set_dumpable(value: int) -> None:
    """Say whether other processes of this user, without further rights, may trace this one."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, value, 0, 0, 0)


def _fork_once() -> None:
    """Fork a process that ends at once: numpy's threads end before a fork and start again where they are needed, in the forks."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
