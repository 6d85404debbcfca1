"""A real server process whose pipeline is the fake one, that a test can kill, starve and lock out."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil

from tests.fakes import executions, fake_model

ROOT = Path(__file__).parents[2]
FINISHED = ("succeeded", "failed", "cancelled")


class ServerProcess:
    """One server and its data folder; the record of what ran lies beside it."""

    def __init__(self, folder: Path, data: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.data = data or folder / "data"
        self.record, self.log = folder / "record", folder / "server.log"
        self.environment = {**os.environ, "ONNX_TRT_OPTIMIZER_MIN_FREE_BYTES": str(2**20), **(environment or {})}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False)
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: set[psutil.Process] = set()  # that the server ever started, as far as was looked

    def start(self, *, seconds: float = 90) -> None:
        """Start it and wait until it answers."""
        self.launch()
        wait_until(self.is_up, seconds, self.log.read_text)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it."""
        arguments = [str(self.data), str(self.port), str(self.record), "fake-1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.service.launch_server", *arguments], cwd=ROOT, stdout=log, stderr=log, env=self.environment
            )
        return self.process

    def is_up(self) -> bool:
        """Whether it answers; it must not have ended."""
        assert self.process is None or self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: int, seconds: float = 10) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            self.family()
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self) -> None:
        """Kill it, if it lives."""
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)

    def post(self, config: str = "{}", **plan: object) -> httpx.Response:
        """Submit a job whose fake model says ``plan``."""
        return self.client.post("/v1/jobs", files={"model": fake_model(**plan), "calibration": b"numbers"}, data={"config": config})

    def submit(self, config: str = "{}", **plan: object) -> str:
        """Submit a job and return its id."""
        answer = self.post(config, **plan)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, object]:
        """Return a job as callers see it."""
        return dict(self.client.get(f"/v1/jobs/{job_id}").json())

    def wait(self, job_id: str, *states: str, seconds: float = 40) -> dict[str, object]:
        """Return the job once it is in one of the states."""
        wait_until(
            lambda: self.job(job_id)["state"] in (states or FINISHED), seconds, lambda: f"{self.job(job_id)}\n{self.log.read_text()}"
        )
        return self.job(job_id)

    def wait_for_line(self, start: str, seconds: float = 20) -> int:
        """Wait until the record has a line that begins so, and return the process id in it."""
        wait_until(lambda: self._lines(start) != [], seconds, self.log.read_text)
        return int(self._lines(start)[-1].split()[-1])

    def counts(self) -> Counter[str]:
        """Return how often each stage began and ended."""
        return Counter(" ".join(line.split()[:2]) for line in executions(self.record))

    def warm_parent(self) -> int:
        """Return the process from which stages are forked."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return next(child.pid for child in children if "service.worker.warm_main" in child.cmdline())

    def family(self) -> list[psutil.Process]:
        """Return the processes that the server started, and those that these started."""
        assert self.process is not None
        found = psutil.Process(self.process.pid).children(recursive=True)
        self.seen |= set(found)
        return found

    def stages(self) -> list[psutil.Process]:
        """Return the processes of stages that run."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("stage ") or "service.worker.child_main" in process.cmdline():
                    found.append(process)
        return found

    def trials(self, job_id: str) -> list[dict[str, object]]:
        """Return the trials of a job."""
        found = self.job(job_id)["trials"]
        assert isinstance(found, list)
        return found

    def orphans(self) -> tuple[str, ...]:
        """Return what is left, a moment after the last job has ended: stages that run, folders of jobs, parts of uploads."""
        until = time.monotonic() + 5
        while (left := self._left()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def _left(self) -> tuple[str, ...]:
        files = [str(path) for folder in ("jobs", "store/unfinished") for path in (self.data / folder).glob("*")]
        processes = [f"process {one.pid}" for one in self.seen - set(self.family()) if one.is_running() and one.status() != "zombie"]
        return (*files, *processes, *(f"process {one.pid}" for one in self.stages()))

    def _lines(self, start: str) -> list[str]:
        return [line for line in executions(self.record) if line.startswith(start)]


def wait_until(condition: Callable[[], bool], seconds: float, about: Callable[[], str] = str) -> float:
    """Wait for a condition and return how many seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not after {seconds} s: {about()}"
        time.sleep(0.05)
    return time.monotonic() - started


@contextmanager
def running(folder: Path, data: Path | None = None, environment: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """Give a started server that is killed at the end."""
    server = ServerProcess(folder, data, environment)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[str | None]:
    """Mount a small disk on a folder, or give the reason why that is not possible."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        yield f"no small disk can be mounted: {error}"
        return
    if mounted.returncode:
        yield f"no small disk can be mounted: {mounted.stderr.strip()}"
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte and return the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return filler


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold a database locked against writers, as a backup tool or a curious operator does."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=20)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
