"""A real server in a process of its own, under a limit of memory, watched from outside while uploads come."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
ADDRESS_SPACE_BYTES = 4 * 2**30  # of the server itself


class Watch:
    """Asks a server for its health and its memory, again and again, and keeps the worst of each."""

    def __init__(self, url: str, pid: int) -> None:
        self.worst_answer_seconds = 0.0
        self.worst_lag_seconds = 0.0  # by which this thread itself woke up late: the load of the machine
        self.worst_resident_bytes = 0
        self.answers = 0
        self.first_resident_bytes = psutil.Process(pid).memory_info().rss
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=60)
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _watch(self) -> None:
        while not self._ended.is_set():
            asked = time.perf_counter()
            assert self._client.get("/healthz").status_code == 200
            answered = time.perf_counter()
            self.worst_answer_seconds = max(self.worst_answer_seconds, answered - asked)
            self.worst_resident_bytes = max(self.worst_resident_bytes, self._process.memory_info().rss)
            self.answers += 1
            self._ended.wait(_PAUSE_SECONDS)
            self.worst_lag_seconds = max(self.worst_lag_seconds, time.perf_counter() - answered - _PAUSE_SECONDS)


class LiveServer:
    """The server's process."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.data, self.temporary, self.log = folder / "data", folder / "temporary", folder / "server.log"
        self.temporary.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ONNX_TRT_OPTIMIZER_")},
            **{f"ONNX_TRT_OPTIMIZER_{key}": value for key, value in settings.items()},
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "service", "serve", "--port", str(self.port), "--data-dir", str(self.data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env=environment, preexec_fn=_limit_memory, start_new_session=True
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=120)
        deadline = time.monotonic() + 60
        while not self._is_ready():
            assert time.monotonic() < deadline, "the server does not answer"
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: int = signal.SIGTERM) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)

    def leftovers(self) -> list[str]:
        """Return what is in the folders of unfinished work."""
        return [
            str(path) for folder in (self.data / "jobs", self.data / "store" / "unfinished", self.temporary) for path in folder.glob("*")
        ]


@contextmanager
def live_server(folder: Path, **settings: str) -> Iterator[LiveServer]:
    server = LiveServer(folder, settings)
    try:
        yield server
    finally:
        server.end()


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))


_PAUSE_SECONDS = 0.05
