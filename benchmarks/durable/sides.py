"""One job three ways: by a call in Python, by a server, and by an api, a worker and Postgres; and several jobs by several workers.

CPU seconds are those of all processes that serve the job, from its submission to its end. Processes that serve all jobs (a server,
Postgres, the process that stages are forked from) are started before. Nothing is kept from job to job.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.jobs import Job
from onnx_trt_optimizer import optimize
from service.client.client import Client
from service.worker.child_process import STAGE_TABLE
from service.worker.warm_parent import WarmParent
from tests.distributed.fleet import Fleet, running_fleet
from tests.distributed.launch_process import REAL
from tests.postgres_server import PostgresServer, binaries, running_postgres
from tests.soak.places import EmbeddedPlace

CALL, SERVER, WORKER = "a call in Python", "one server", "an api, a worker and Postgres"
NOTHING_KEPT = {"ONNX_TRT_OPTIMIZER_CACHE_BYTES": "0"}
SETTLE_SECONDS = 4.0  # in which the process that stages are forked from imports what they need


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of the job took.

    Attributes:
        side: Which of the three ways.
        cpu_seconds: Of all processes.
        wall_seconds: From the submission, or the call, to the end.
        trials: That the search made: another number of them is another amount of work.
    """

    side: str
    cpu_seconds: float
    wall_seconds: float
    trials: int


def called(job: Job) -> Cost:
    """Run the job by a call in a process that has imported all it needs."""
    command = [sys.executable, "-m", "benchmarks.durable.sides", str(job.model), str(job.calibration), str(job.validation)]
    done = subprocess.run([*command, json.dumps(job.config)], stdout=subprocess.PIPE, check=True, env=os.environ | NOTHING_KEPT)
    found = json.loads(done.stdout)
    return Cost(CALL, found["cpu_seconds"], found["wall_seconds"], found["trials"])


def served(job: Job) -> Cost:
    """Run the job by a server."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPlace(Path(folder), environment=NOTHING_KEPT)
        try:
            server.start()
            time.sleep(SETTLE_SECONDS)
            (process,) = server.processes().values()
            with Client(str(server.client.base_url)) as client:
                return _submitted(SERVER, client, job, 1, lambda: cpu_seconds(process))
        finally:
            server.close()


def distributed(job: Job, workers: int, jobs: int) -> Cost:
    """Run the job so many times at once by an api, workers and Postgres.

    Args:
        job: The job.
        workers: How many.
        jobs: How many times.

    Returns:
        What all of them took together.
    """
    names = [f"worker-{number}" for number in range(workers)]
    with (
        _postgres() as database,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        _environment(NOTHING_KEPT),
        running_fleet(Path(folder), database.create_database(), *names, version=REAL, lease_seconds=15.0) as fleet,
        Client(str(fleet.client.base_url)) as client,
    ):
        time.sleep(SETTLE_SECONDS)
        return _submitted(WORKER, client, job, jobs, lambda: _seconds_of(fleet, database))


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process, of all that it started, and of those of them that have ended and were waited for."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _submitted(side: str, client: Client, job: Job, jobs: int, seconds: Callable[[], float]) -> Cost:
    """Submit the job so many times, wait for all of them, and return what they took."""
    files = [client.upload(path) for path in (job.model, job.calibration, job.validation)]
    before, begun = seconds(), time.monotonic()
    ids = [client.submit(files[0], files[1], files[2], job.config).id for _ in range(jobs)]
    ended = [client.watch(job_id, lambda _: None) for job_id in ids]
    wall = time.monotonic() - begun
    if failed := [one.error for one in ended if one.state != "succeeded"]:
        raise SystemExit(f"{job.name}: {failed}")
    time.sleep(_LAST_SECONDS)  # the last child is waited for
    return Cost(side, seconds() - before, wall, sum(len(one.trials) for one in ended))


def _seconds_of(fleet: Fleet, database: PostgresServer) -> float:
    processes = [*(one.process for one in fleet.processes.values()), database.process]
    return sum(cpu_seconds(psutil.Process(one.pid)) for one in processes if one is not None)


@contextmanager
def _postgres() -> Iterator[PostgresServer]:
    found = binaries()
    if found is None:
        raise SystemExit("postgres is not installed")
    with running_postgres(found) as database:
        yield database


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _call(model: str, calibration: str, validation: str, config: str) -> None:
    """Run the job in this process and print what it took."""
    own = psutil.Process()
    with closing(WarmParent(STAGE_TABLE)) as parent:  # files are read once, as they are where a server was started
        parent.start()
        time.sleep(SETTLE_SECONDS)
        started = cpu_seconds(psutil.Process(parent.pid))
    before, begun = cpu_seconds(own), time.monotonic()
    with tempfile.TemporaryDirectory() as output:
        optimize(model, calibration, validation, output=output, config=json.loads(config), keep=False)
        wall = time.monotonic() - begun
        trials = len(json.loads(Path(output, "report.json").read_text(encoding="utf-8"))["trials"])
    took = cpu_seconds(own) - before - started
    sys.stdout.write(json.dumps({"cpu_seconds": took, "wall_seconds": wall, "trials": trials}))


_LAST_SECONDS = 0.5

if __name__ == "__main__":
    _call(*sys.argv[1:])
