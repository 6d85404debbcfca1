"""Stages that do what real ones must never do, for the tests of the child process."""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import math
import mmap
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np

from calibration.errors import InvalidModelError
from engine_builder.workspace.workspace import StageContext

_MAP_NORESERVE = 0x4000  # Linux; Python 3.11 has no name for it
_PR_GET_DUMPABLE = 3
logger = logging.getLogger(__name__)


def echo(request: Mapping[str, object], context: StageContext) -> object:
    """Write a file and return the request with its reference."""
    ref = context.workspace.write_json("echo.json", dict(request))
    for step in range(5):
        context.progress(step / 4, f"step {step}")
    return {"request": request, "ref": {"file": ref.file, "sha256": ref.sha256}, "environment": dict(os.environ), "cwd": str(Path.cwd())}


def offer(request: Mapping[str, object], context: StageContext) -> object:
    """Write an engine with external data into a folder of its own."""
    context.workspace.write_bytes(f"{request['folder']}/w.data", b"weights")
    ref = context.workspace.write_bytes(f"{request['folder']}/engine.onnx", b"\x0a\x08location\x12\x06w.data")
    return {"file": ref.file, "sha256": ref.sha256}


def allocate(request: Mapping[str, object], context: StageContext) -> object:
    """Take more memory than any limit in a test."""
    del request, context
    return {"sum": float(np.ones(2**34, dtype=np.uint8).sum())}


def hold_memory(request: Mapping[str, object], context: StageContext) -> object:
    """Reserve 64 GiB of addresses, as CUDA does, touch as many bytes as the request says, and wait."""
    del context
    reserved = mmap.mmap(-1, 64 * 2**30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    held = np.ones(cast(int, request["touched_bytes"]), dtype=np.uint8)
    time.sleep(cast(float, request["seconds"]))
    reserved.close()
    return {"sum": int(held[:: 2**20].sum())}


def allocate_inside_an_input_error(request: Mapping[str, object], context: StageContext) -> object:
    """Blame the model for what the memory limit did."""
    try:
        return allocate(request, context)
    except MemoryError as exc:
        raise InvalidModelError("model: cannot be read", fix="export it again") from exc


def say_bad_alloc_and_abort(request: Mapping[str, object], context: StageContext) -> object:
    """Die as a C++ library does that nobody catches."""
    del request, context
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def raise_from_runtime(request: Mapping[str, object], context: StageContext) -> object:
    """Fail as onnxruntime does when an allocation fails."""
    del request, context
    raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 9")


def crash(request: Mapping[str, object], context: StageContext) -> object:
    """Read address zero."""
    del request, context
    ctypes.string_at(0)
    return {}


def kill_itself(request: Mapping[str, object], context: StageContext) -> object:
    """End by SIGKILL without a word."""
    del request, context
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def leave(request: Mapping[str, object], context: StageContext) -> object:
    """End the process without a result."""
    del request, context
    os._exit(3)


def exit_politely(request: Mapping[str, object], context: StageContext) -> object:
    """Raise SystemExit."""
    del request, context
    sys.exit(0)


def sleep(request: Mapping[str, object], context: StageContext) -> object:
    """Leave a scratch file and its process id, then wait for ever."""
    (context.scratch / "half-done").write_bytes(b"x" * 1000)
    context.workspace.write_json("pid.json", os.getpid())
    context.progress(0.1, "sleeping")
    time.sleep(float(str(request.get("seconds", 60))))
    return {}


def fork(request: Mapping[str, object], context: StageContext) -> object:
    """Leave a grandchild behind that holds the pipes open; wait with it when asked to."""
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    context.workspace.write_json("pid.json", pid)
    if request.get("wait"):
        time.sleep(60)
    return {"pid": pid}


def print_garbage(request: Mapping[str, object], context: StageContext) -> object:
    """Print to stdout in every way there is, between two progress lines."""
    del request
    context.progress(0.25, "before")
    print("not json {")  # noqa: T201 - that is the point
    sys.stdout.flush()
    os.write(1, b"\xff\xfe written to the file descriptor\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"printed by native code")
    libc.fflush(None)
    context.progress(0.75, "after")
    return {"fine": True}


def flood(request: Mapping[str, object], context: StageContext) -> object:
    """Print more than the log may hold."""
    del request, context
    for _ in range(100):
        os.write(2, b"y" * 65535 + b"\n")
    return {"fine": True}


def refuse(request: Mapping[str, object], context: StageContext) -> object:
    """Blame the input."""
    del request, context
    raise InvalidModelError("node 'a': found op Foo, expected a standard one", fix="replace it")


def stumble(request: Mapping[str, object], context: StageContext) -> object:
    """Have a fault of its own."""
    del request
    logger.info("about to stumble")
    raise KeyError(f"no layer in {context.workspace.root}/x.json\nsecond line")


def return_a_set(request: Mapping[str, object], context: StageContext) -> object:
    """Return what JSON cannot hold."""
    del request, context
    return {"value": {1, 2}}


def return_a_list(request: Mapping[str, object], context: StageContext) -> object:
    """Return JSON that is no object."""
    del request, context
    return [1]


def return_nan(request: Mapping[str, object], context: StageContext) -> object:
    """Return a number that JSON does not know."""
    del request, context
    return {"value": math.nan}


def call_out(request: Mapping[str, object], context: StageContext) -> object:
    """Try to reach the given port of this machine."""
    del context
    with socket.socket() as client:
        client.settimeout(2)
        return {"error": client.connect_ex(("127.0.0.1", int(str(request["port"]))))}


def look_around(request: Mapping[str, object], context: StageContext) -> object:
    """Tell what this process has from whoever started it."""
    del request, context
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "files": sorted(number for number in map(int, os.listdir("/proc/self/fd")) if (Path("/proc/self/fd") / str(number)).exists()),
        "temporary": tempfile.gettempdir(),
        "threads": len(os.listdir("/proc/self/task")),
        "dumpable": ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0),
        "modules": sorted(sys.modules),
        "safe_path": sys.flags.safe_path,
        "mark": getattr(math, "mark", None),
        "path": list(sys.path),
        "cwd_of_parent": os.readlink(f"/proc/{os.getppid()}/cwd") if os.geteuid() == 0 else "/",
        "started_with": Path("/proc/self/environ").read_text(errors="replace"),
        "has_default_signals": all(signal.getsignal(one) is signal.SIG_DFL for one in (signal.SIGTERM, signal.SIGHUP)),
    }


def poison(request: Mapping[str, object], context: StageContext) -> object:
    """Change what the process holds in memory."""
    del request, context
    vars(math)["mark"] = "poisoned"
    os.environ["OMP_NUM_THREADS"] = "poisoned"
    return {"mark": vars(math)["mark"]}


def kill_parent(request: Mapping[str, object], context: StageContext) -> object:
    """Kill the process that started this one, unless that happened before; note every run."""
    note = context.workspace.root / "runs.json"
    runs = [*json.loads(note.read_text()), os.getppid()] if note.exists() else [os.getppid()]
    context.workspace.write_json("runs.json", runs)
    if len(runs) <= cast(int, request.get("times", 1)):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return {"runs": runs}


def be_killed(request: Mapping[str, object], context: StageContext) -> object:
    """End by the signal of the request, as often as it says; note every run."""
    note = context.workspace.root / "runs.txt"
    with note.open("a") as runs:
        runs.write(f"{os.getpid()}\n")
    count = len(note.read_text().splitlines())
    if count <= cast(int, request["times"]):
        os.kill(os.getpid(), cast(int, request["signal"]))
        time.sleep(60)
    return {"runs": count}


def meet_full_disk(request: Mapping[str, object], context: StageContext) -> object:
    """Fail as the disk makes it fail: in an error of its own, in one of another library, or in one that blames the model.

    Or fill it, so that there is no room for an error either.
    """
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/result.bin")
    if request["how"] == "native":
        raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : write failed: {os.strerror(errno.EIO)}")
    if request["how"] == "blamed":
        raise InvalidModelError("model: cannot be written", fix="export it again") from error
    if request["how"] == "filled":
        with (context.workspace.root / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    raise error


Stage = Callable[[Mapping[str, object], StageContext], object]
STAGES: Mapping[str, Stage] = {
    function.__name__: function
    for function in (
        echo,
        offer,
        allocate,
        hold_memory,
        allocate_inside_an_input_error,
        say_bad_alloc_and_abort,
        raise_from_runtime,
        crash,
        kill_itself,
        leave,
        exit_politely,
        sleep,
        fork,
        print_garbage,
        flood,
        refuse,
        stumble,
        return_a_set,
        return_a_list,
        return_nan,
        call_out,
        look_around,
        poison,
        kill_parent,
        be_killed,
        meet_full_disk,
    )
}
