"""Several real processes on one database, that a test can kill, stop and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import psycopg

from tests.distributed.cut_network import CutNetwork
from tests.fakes import executions, fake_model
from tests.faults.server_process import FINISHED, ROOT, wait_until
from tests.object_store_server import BUCKET, ObjectStoreServer

LEASE_SECONDS = 4.0


class FleetProcess:
    """One process: an API or a worker."""

    def __init__(self, name: str, role: str, fleet: Fleet, environment: Mapping[str, str], before: Sequence[str] = ()) -> None:
        self.name, self.role = name, role
        self._before = before  # its command
        self._fleet = fleet
        self._environment = environment
        self.data = fleet.folder / f"data-{name}"
        self.log = fleet.folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, data: Path | None = None, version: str | None = None) -> subprocess.Popen[bytes]:
        """Start it, by default in its own data folder."""
        arguments = [self.role, str(self._fleet.port), str(self._fleet.record), version or self._fleet.version]
        environment = {**self._fleet.environment, **self._environment}
        environment |= {"ONNX_TRT_OPTIMIZER_EXECUTOR_ID": self.name, "ONNX_TRT_OPTIMIZER_DATA_DIR": str(data or self.data)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._before, sys.executable, "-m", "tests.distributed.launch_process", *arguments],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env=environment,
            )
        return self.process

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGKILL, seconds: float = 20) -> int:
        """End it and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self) -> None:
        """Kill it, if it lives."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.end()


class Fleet:
    """The processes, what they share, and a client of the API."""

    def __init__(
        self,
        folder: Path,
        url: str,
        objects: ObjectStoreServer | None = None,
        version: str = "fake-1",
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.version = version
        self.networks: Mapping[str, CutNetwork] = {}  # of processes that have one of their own
        self.folder, self.url, self.objects = folder, url, objects
        self.shared, self.record = folder / "shared", folder / "record"
        place = {"ONNX_TRT_OPTIMIZER_SHARED_DIR": str(self.shared)}
        if objects is not None:
            place = {"ONNX_TRT_OPTIMIZER_OBJECT_STORE": f"s3://{BUCKET}/{folder.name}", **objects.environment}
        self.environment = {
            **os.environ,
            **place,
            "ONNX_TRT_OPTIMIZER_DATABASE_URL": url,
            "ONNX_TRT_OPTIMIZER_LEASE_SECONDS": str(lease_seconds),
            "ONNX_TRT_OPTIMIZER_MIN_FREE_BYTES": str(2**20),
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)
        self.processes: dict[str, FleetProcess] = {}

    def add(self, name: str, role: str, network: CutNetwork | None = None, **environment: str) -> FleetProcess:
        """Start a process, in a network of its own if one is given."""
        if network is not None:
            environment["ONNX_TRT_OPTIMIZER_DATABASE_URL"] = self.url.replace("127.0.0.1", network.own)
        process = self.processes[name] = FleetProcess(name, role, self, environment, () if network is None else network.command)
        process.launch()
        return process

    def wait_until_up(self, seconds: float = 240) -> None:
        """Wait until the API answers and every process that was started holds its lease."""
        wait_until(self._is_up, seconds, self.logs)

    def submit(self, config: str = "{}", **plan: object) -> str:
        """Submit a job whose fake model says ``plan`` and return its id."""
        form = {"model": fake_model(**plan), "calibration": b"numbers"}
        answer = self.client.post("/v1/jobs", files=form, data={"config": config})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, object]:
        """Return a job as callers see it; empty while the API does not answer."""
        try:
            return dict(self.client.get(f"/v1/jobs/{job_id}").json())
        except httpx.TransportError:
            return {}

    def wait(self, job_id: str, *states: str, seconds: float = 60) -> dict[str, object]:
        """Return the job once it is in one of the states."""
        wait_until(lambda: self.job(job_id).get("state") in (states or FINISHED), seconds, lambda: f"{self.job(job_id)}\n{self.logs()}")
        return self.job(job_id)

    def wait_for_line(self, start: str, seconds: float = 30, after: int = 0) -> int:
        """Wait until the record has a line that begins so, behind the first ``after`` lines; return the process id in it."""
        wait_until(lambda: bool(self._lines(start, after)), seconds, self.logs)
        return int(self._lines(start, after)[-1].split()[-1])

    def counts(self, after: int = 0) -> Counter[str]:
        """Return how often each stage began and ended, behind the first ``after`` lines of the record."""
        return Counter(" ".join(line.split()[:2]) for line in executions(self.record)[after:])

    def lines(self) -> int:
        """Return how many lines the record has."""
        return len(executions(self.record))

    def owner(self, pid: int) -> FleetProcess:
        """Return the worker that runs a stage, given the stage's process."""
        family = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
        return next(one for one in self.processes.values() if one.process is not None and one.process.pid in family)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """Ask the database itself."""
        with psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=5) as connection:
            return list(connection.execute(statement.encode()).fetchall())

    def left_files(self) -> list[str]:
        """Return what lies in folders that are empty once all jobs have ended."""
        if self.objects is None:
            return [str(path) for pattern in ("jobs/*", "store/unfinished/*/*") for path in self.shared.glob(pattern)]
        left = [str(path) for pattern in ("jobs/*", "store/unfinished/*") for path in self.folder.glob(f"data-*/{pattern}")]
        return left + [f"{name} of {job}" for job, name in self.query("SELECT job_id, name FROM work_files")]

    def logs(self) -> str:
        """Return what the processes wrote."""
        return "\n".join(f"--- {name}\n{one.log.read_text()[-6000:]}" for name, one in self.processes.items() if one.log.exists())

    def close(self) -> None:
        """Kill all."""
        self.client.close()
        for process in self.processes.values():
            process.close()

    def holders(self) -> set[str]:
        """Return the names of the processes that hold their lease."""
        rows = self.query(
            "SELECT name FROM processes JOIN pg_locks ON locktype = 'advisory' AND granted AND objsubid = 1 "
            "AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND ((classid::bigint << 32) | objid::bigint) = "
            "('x' || substr(encode(sha256(convert_to(name, 'UTF8')), 'hex'), 1, 16))::bit(64)::bigint"
        )
        return {str(name) for (name,) in rows}

    def _is_up(self) -> bool:
        for one in self.processes.values():
            assert one.process is None or one.process.poll() is None, self.logs()
        try:
            if self.client.get("/healthz").status_code != 200:
                return False
            return self.holders() == set(self.processes)
        except (httpx.TransportError, psycopg.Error):
            return False

    def _lines(self, start: str, after: int) -> list[str]:
        return [line for line in executions(self.record)[after:] if line.startswith(start)]


@contextmanager
def running_fleet(
    folder: Path,
    url: str,
    *workers: str,
    gpu: str | None = None,
    objects: ObjectStoreServer | None = None,
    version: str = "fake-1",
    networks: Mapping[str, CutNetwork] | None = None,
    lease_seconds: float = LEASE_SECONDS,
) -> Iterator[Fleet]:
    """Give an API and workers that are up, and kill them at the end.

    Args:
        folder: For all that they write.
        url: Of their database.
        workers: Names of cpu workers.
        gpu: Type of GPU that a worker ``gpu`` pretends to have.
        objects: The store of their files; a folder that they share by default.
        version: Of the pipeline, which is a fake one, or "real".
        networks: In which some of the workers live, by their names.
        lease_seconds: For how long a process that is not heard of counts as alive.
    """
    fleet = Fleet(folder, url, objects, version, lease_seconds)
    fleet.networks = dict(networks or {})
    try:
        fleet.add("api", "api")
        for name in workers:
            fleet.add(name, "cpu", fleet.networks.get(name))
        if gpu is not None:
            fleet.add("gpu", "gpu", FAKE_GPU=gpu)
        fleet.wait_until_up()
        yield fleet
    finally:
        fleet.close()
