"""A real server in a process of its own that finds the stand-in, and jobs over HTTP."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx

from tests.model_text import Array, samples_for
from tests.tensorrt_stand_in.install import ROOT

Json = dict[str, Any]  # of answers
ENDED = ("succeeded", "failed", "cancelled")


class StandInServer:
    """The server's process, and a client of it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._environment = dict(environment)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", trust_env=False, timeout=120)
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service", "serve", "--port", str(self._port), "--data-dir", str(self.folder / "data")]
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=self._environment, start_new_session=True)
        until(self._is_ready, "the server does not answer", while_running=process)
        return process

    def kill_and_start_again(self) -> None:
        """Kill the server, as a power cut would, and start another one on its data."""
        self.process.kill()
        self.process.wait(30)
        self.process = self._started()

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def submit(self, model: onnx.ModelProto, config: Mapping[str, object], samples: Mapping[str, Array] | None = None) -> str:
        """Submit a job and return its id."""
        buffer = io.BytesIO()
        np.savez(buffer, **(samples_for(model, 40) if samples is None else samples))  # type: ignore[arg-type]  # numpy's own options
        files = {"model": model.SerializeToString(), "calibration": buffer.getvalue(), "config": json.dumps(config).encode()}
        answer = self.client.post("/v1/jobs", files=files)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> Json:
        """Return a job."""
        return dict(self.client.get(f"/v1/jobs/{job_id}").json())

    def wait(self, job_id: str) -> Json:
        """Return a job that has ended."""
        until(lambda: self.job(job_id)["state"] in ENDED, "the job does not end", seconds=180, while_running=self.process)
        return self.job(job_id)

    def finished(
        self, model: onnx.ModelProto, config: Mapping[str, object], samples: Mapping[str, Array] | None = None
    ) -> tuple[Json, Json]:
        """Run a job to its end and return its result and its report."""
        job = self.wait(self.submit(model, config, samples))
        assert job["state"] == "succeeded", job
        return dict(job["result"]), self.artifact(job["id"], "report.json")

    def artifact(self, job_id: str, name: str) -> Json:
        """Return a file of a job."""
        answer = self.client.get(f"/v1/jobs/{job_id}/artifacts/{name}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def end(self) -> None:
        """End the server."""
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@contextmanager
def stand_in_server(folder: Path, environment: Mapping[str, str]) -> Iterator[StandInServer]:
    """Run a server while the block runs."""
    server = StandInServer(folder, environment)
    try:
        yield server
    finally:
        server.end()


def until(is_so: Callable[[], bool], complaint: str, *, seconds: float = 60, while_running: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, complaint
        assert while_running is None or while_running.poll() is None, complaint
        time.sleep(0.05)
