"""A real server process, stopped and killed in mid-search: the job goes on by itself and nothing finished runs again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes import executions, fake_model
from tests.process_state import is_running
from tests.service.conftest import wait_for_state

ROOT = Path(__file__).parents[3]


class Process:
    """A server process that can be stopped, killed and started again in the same data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, version: str = "fake-1") -> None:
        command = [
            sys.executable,
            "-m",
            "tests.service.launch_server",
            str(self.folder / "data"),
            str(self.port),
            str(self.record),
            version,
        ]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def end(self, number: int, seconds: float) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(seconds)

    def submit(self, **plan: object) -> str:
        answer = self.client.post("/v1/jobs", files={"model": fake_model(**plan), "calibration": b"numbers"})
        return str(answer.json()["id"])

    def wait_for_line(self, start: str, seconds: float = 20) -> int:
        """Wait until the record has a line that begins so; return the process id in it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in executions(self.record):
                if line.startswith(start):
                    return int(line.split()[-1])
            time.sleep(0.02)
        raise AssertionError(f"no {start!r} in {executions(self.record)}")

    def counts(self) -> Counter[str]:
        return Counter(" ".join(line.split()[:2]) for line in executions(self.record))

    def leftovers(self, seconds: float = 20) -> list[str]:
        """Return what lies in folders that are empty once a job has ended, which it clears up after it is shown as ended."""
        parts = [self.folder / "data" / part for part in ("jobs", "store/unfinished")]
        deadline = time.monotonic() + seconds
        while (left := [name for part in parts for name in os.listdir(part)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    process.start()
    yield process
    process.client.close()
    if process.process is not None and process.process.poll() is None:
        process.end(signal.SIGKILL, 10)


def assert_gone(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs after {seconds} s"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "whole_tree"),
    [
        (signal.SIGKILL, False),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.long),
    ],
)
def test_job_goes_on_after_the_server_ends_in_mid_search(process: Process, number: int, whole_tree: bool) -> None:
    job_id = process.submit(trials=3, seconds=0.5)
    child = process.wait_for_line("begin trial/1")

    if whole_tree:  # as a service manager does it, and the child is the faster one to end
        os.kill(child, number)
    process.end(number, seconds=4)
    assert_gone(child, seconds=2)
    process.start()
    done = wait_for_state(process.client, job_id, seconds=30)

    assert done["state"] == "succeeded", done
    assert len(done["trials"]) == 3  # type: ignore[arg-type]
    assert all(trial["failure"] is None for trial in done["trials"])  # type: ignore[attr-defined]
    counts = process.counts()
    assert counts.pop("begin trial/1") == 2  # the one that was interrupted
    assert set(counts.values()) == {1}, counts
    assert process.leftovers() == []


@pytest.mark.long
def test_job_cancelled_before_a_kill_stays_cancelled(process: Process) -> None:
    job_id = process.submit(trials=1, seconds=30)
    process.wait_for_line("begin trial/0")
    assert process.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    process.end(signal.SIGKILL, seconds=5)

    process.start()
    other = process.submit(trials=0)

    assert wait_for_state(process.client, other)["state"] == "succeeded"
    assert process.client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
    assert process.counts()["begin trial/0"] == 1
    assert process.leftovers() == []


@pytest.mark.long
def test_jobs_that_another_version_or_nobody_knows_are_run_anew(process: Process) -> None:
    running, queued = process.submit(trials=2, seconds=0.7), process.submit(trials=0)
    process.wait_for_line("end trial/0")
    process.end(signal.SIGKILL, seconds=5)
    (process.folder / "data" / "jobs" / "request-that-became-no-job").mkdir()

    process.start(version="fake-2")
    first, second = (wait_for_state(process.client, job_id, seconds=30) for job_id in (running, queued))

    assert (first["state"], second["state"]) == ("succeeded", "succeeded")
    assert len(first["trials"]) == 2  # type: ignore[arg-type]
    assert process.counts()["begin trial/0"] == 2
    assert process.leftovers() == []
