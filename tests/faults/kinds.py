"""Kinds of faults: what each does to a server with a running job, and how the cause goes away again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping

import httpx
import psutil

from service.settings import Settings
from tests.faults.server_process import FINISHED, ServerProcess, fill, locked
from tests.service.launch_server import fake_deps

Fault = Callable[[ServerProcess, str, random.Random], None]


class ImpossibleHereError(Exception):
    """This machine does not let the fault be made; says why."""


def kill_server(server: ServerProcess, _job: str, _rng: random.Random) -> None:
    server.end(signal.SIGKILL)
    server.start()


def stop_by(number: int) -> Fault:
    def stop(server: ServerProcess, _job: str, _rng: random.Random) -> None:
        server.end(number)
        server.start()

    return stop


def kill_whole_tree(server: ServerProcess, _job: str, _rng: random.Random) -> None:
    for process in server.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.end(signal.SIGKILL)
    server.start()


def terminate_whole_tree(server: ServerProcess, _job: str, _rng: random.Random) -> None:
    for process in reversed(server.family()):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    server.end(signal.SIGTERM)
    server.start()


def kill_twice(server: ServerProcess, _job: str, rng: random.Random) -> None:
    server.end(signal.SIGKILL)
    server.launch()
    time.sleep(rng.uniform(0.2, 2.5))
    server.end(signal.SIGKILL)
    server.start()


def signal_stage(number: int) -> Fault:
    def send(server: ServerProcess, job: str, _rng: random.Random) -> None:
        while not (stages := server.stages()) and server.job(job)["state"] not in FINISHED:
            time.sleep(0.01)
        for process in stages:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    return send


def kill_warm_parent(server: ServerProcess, _job: str, _rng: random.Random) -> None:
    with contextlib.suppress(StopIteration, ProcessLookupError):  # it may be about to start
        os.kill(server.warm_parent(), signal.SIGKILL)


def suspend_server(server: ServerProcess, _job: str, rng: random.Random) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.5, 2.0))
    server.process.send_signal(signal.SIGCONT)


def fill_disk(server: ServerProcess, _job: str, rng: random.Random) -> None:
    if not server.data.parent.is_mount():
        raise ImpossibleHereError("no small disk can be mounted")
    filler = fill(server.data)
    time.sleep(rng.uniform(1.0, 3.0))
    filler.unlink()


def fill_disk_and_kill(server: ServerProcess, _job: str, rng: random.Random) -> None:
    if not server.data.parent.is_mount():
        raise ImpossibleHereError("no small disk can be mounted")
    filler = fill(server.data)
    time.sleep(rng.uniform(0.0, 2.0))
    server.end(signal.SIGKILL)
    filler.unlink()
    server.start()


def make_read_only(name: str) -> Fault:
    def remount(server: ServerProcess, _job: str, rng: random.Random) -> None:
        folder = str(server.data / name)
        bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True, check=False)
        if bound.returncode:
            raise ImpossibleHereError(bound.stderr.strip())
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
            time.sleep(rng.uniform(1.0, 3.0))
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)

    return remount


def lock_database(server: ServerProcess, _job: str, rng: random.Random) -> None:
    with locked(server.data / "service.sqlite"):
        time.sleep(rng.uniform(1.0, 8.0))


def lock_database_and_kill(server: ServerProcess, _job: str, rng: random.Random) -> None:
    with locked(server.data / "service.sqlite"):
        time.sleep(rng.uniform(0.0, 2.0))
        server.end(signal.SIGKILL)
    server.start()


def lose_database(server: ServerProcess, _job: str, _rng: random.Random) -> None:
    server.end(signal.SIGKILL)
    for file in server.data.glob("service.sqlite*"):
        file.unlink()
    server.start()


def lose_log_of_database(server: ServerProcess, _job: str, _rng: random.Random) -> None:
    server.end(signal.SIGKILL)
    for file in server.data.glob("service.sqlite-*"):
        file.unlink()
    server.start()


def damage_database(server: ServerProcess, _job: str, rng: random.Random) -> None:
    server.end(signal.SIGKILL)
    path = server.data / "service.sqlite"
    for beside in server.data.glob("service.sqlite-*"):
        beside.unlink()
    with path.open("r+b") as file:
        for _ in range(20):
            file.seek(rng.randrange(path.stat().st_size // 4096) * 4096)
            file.write(rng.randbytes(4096))
    fake_deps(Settings(data_dir=server.data), server.record, rebuild=True).close()
    server.start()


def cut_upload_and_kill(server: ServerProcess, _job: str, _rng: random.Random) -> None:
    def pieces() -> object:
        yield bytes(2**20)
        server.end(signal.SIGKILL)
        yield bytes(2**20)

    with contextlib.suppress(httpx.HTTPError):
        server.client.post("/v1/files", content=pieces(), headers={"Content-Type": "application/octet-stream"})  # type: ignore[arg-type]  # an iterator of bytes
    server.start()


def cancel(server: ServerProcess, job: str, _rng: random.Random) -> None:
    assert server.client.post(f"/v1/jobs/{job}/cancel").json()["state"] in {"cancelled", "succeeded"}


def cancel_and_kill(server: ServerProcess, job: str, rng: random.Random) -> None:
    cancel(server, job, rng)
    server.end(signal.SIGKILL)
    server.start()


KINDS: Mapping[str, Fault] = {
    "kill -9 of the server": kill_server,
    "SIGTERM to the server": stop_by(signal.SIGTERM),
    "SIGINT to the server": stop_by(signal.SIGINT),
    "kill -9 of the whole tree": kill_whole_tree,
    "SIGTERM to the whole tree": terminate_whole_tree,
    "kill -9 twice, the second while it starts": kill_twice,
    "kill -9 of the stage": signal_stage(signal.SIGKILL),
    "SIGTERM to the stage": signal_stage(signal.SIGTERM),
    "kill -9 of the warm parent": kill_warm_parent,
    "server suspended and resumed": suspend_server,
    "full disk": fill_disk,
    "full disk, then kill -9": fill_disk_and_kill,
    "jobs/ read-only": make_read_only("jobs"),
    "store/ read-only": make_read_only("store"),
    "database locked": lock_database,
    "database locked, then kill -9": lock_database_and_kill,
    "database lost": lose_database,
    "log of the database lost": lose_log_of_database,
    "database damaged, then rebuilt": damage_database,
    "upload cut by kill -9": cut_upload_and_kill,
    "cancel": cancel,
    "cancel, then kill -9": cancel_and_kill,
}
STEPS_ARE_LOST = frozenset({"database lost", "log of the database lost", "database damaged, then rebuilt"})  # with the record of them
