"""Uploads of a large file to a server: how fast, how much memory, and how late other answers come meanwhile."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

_MIB = 1 << 20
_WATCH_SECONDS = 0.02
_WARM_BYTES = 4 * _MIB


@dataclass(frozen=True, slots=True)
class Uploads:
    """What several uploads of one size showed.

    ``bytes_per_second`` is of each upload, from curl's start to its end: sent, hashed and stored. ``server_growth_bytes`` is how far the
    resident memory of the server's process rose above what it was after a small upload.
    """

    size_bytes: int
    bytes_per_second: Sequence[float]
    server_growth_bytes: int
    health_seconds: Sequence[float]  # how long each GET /healthz took meanwhile


def measured(address: str, server: psutil.Process, folder: Path, size_bytes: int, times: int) -> Uploads:
    """Upload random files with curl, one after the other.

    Args:
        address: Of the server.
        server: Its process.
        folder: Where the file is made.
        size_bytes: Of each upload.
        times: How many.
    """
    path = folder / "upload.bin"
    _write_random(path, _WARM_BYTES)
    _send(address, path)
    before = server.memory_info().rss
    speeds, watch = [], _Watch(address, server)
    with watch:
        for _ in range(times):
            _write_random(path, size_bytes)  # another one each time: what the server has need not be sent
            start = time.perf_counter()
            _send(address, path)
            speeds.append(size_bytes / (time.perf_counter() - start))
    path.unlink()
    return Uploads(size_bytes, speeds, watch.peak_bytes - before, watch.seconds)


class _Watch:
    """Asks for the server's health and memory in a thread until it is closed."""

    def __init__(self, address: str, server: psutil.Process) -> None:
        self.peak_bytes = 0
        self.seconds: list[float] = []
        self._address, self._server = address, server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._address, trust_env=False) as client:
            while not self._ended.wait(_WATCH_SECONDS):
                start = time.perf_counter()
                client.get("/healthz").raise_for_status()
                self.seconds.append(round(time.perf_counter() - start, 4))
                self.peak_bytes = max(self.peak_bytes, self._server.memory_info().rss)


def _write_random(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size_bytes, _MIB):
            file.write(os.urandom(min(_MIB, size_bytes - start)))
        file.flush()
        os.fsync(file.fileno())  # else it is written to the disk while its copy is


def _send(address: str, path: Path) -> None:
    command = ["curl", "-fsS", "--noproxy", "*", "-o", os.devnull, "-H", "Content-Type: application/octet-stream", "-X", "POST"]
    subprocess.run([*command, "-T", str(path), f"{address}/v1/files"], check=True)
