"""Where the jobs of the soak run, which processes can be killed there, and what all of it takes of the machine."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import httpx
import psutil

from tests.distributed.fleet import LEASE_SECONDS, Fleet
from tests.faults.server_process import ROOT, ServerProcess
from tests.postgres_server import PostgresServer

Kill = Callable[[random.Random], None]
STAGE, WARM_PARENT = "kill -9 of a stage", "kill -9 of the warm parent"
HIT_STAGES = frozenset({STAGE, WARM_PARENT})  # kinds that end a stage, which counts as failed where one is ended twice


class Place(Protocol):
    """A server, or several processes that are one."""

    client: httpx.Client

    @property
    def kills(self) -> Mapping[str, Kill]:
        """What can be done to it; each returns when all processes are there again."""

    def processes(self) -> Mapping[str, psutil.Process]:
        """Return the processes that are to live as long as it does, by name."""

    def rows(self) -> Mapping[str, int]:
        """Return how many rows each table has."""

    def folders(self) -> Sequence[Path]:
        """Return the folders with all that it keeps."""


class EmbeddedPlace(ServerProcess):
    """One server with the real pipeline."""

    def launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service", "serve", "--port", str(self.port), "--data-dir", str(self.data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=self.environment)
        return self.process

    @property
    def kills(self) -> Mapping[str, Kill]:
        return {
            STAGE: lambda _: _kill(self.stages(), signal.SIGKILL),
            "kill -9 of the server": lambda _: self._again(signal.SIGKILL),
            "SIGTERM to the server": lambda _: self._again(signal.SIGTERM),
            "kill -9 of the whole tree": lambda _: self._again(signal.SIGKILL, with_family=True),
            WARM_PARENT: lambda _: _kill_pid(self.warm_parent),
        }

    def processes(self) -> Mapping[str, psutil.Process]:
        assert self.process is not None
        return {"server": psutil.Process(self.process.pid)}

    def rows(self) -> Mapping[str, int]:
        with closing(sqlite3.connect(f"file:{self.data / 'service.sqlite'}?mode=ro", uri=True, timeout=20)) as connection:
            tables = [str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}

    def folders(self) -> Sequence[Path]:
        return (self.data,)

    def _again(self, number: int, *, with_family: bool = False) -> None:
        if with_family:
            _kill(self.family(), signal.SIGKILL)
        self.end(number, seconds=60)
        self.start()


class FleetPlace:
    """An api, workers and Postgres."""

    def __init__(self, fleet: Fleet, database: PostgresServer) -> None:
        self._fleet, self._database = fleet, database
        self.client = fleet.client
        self._workers = [name for name, process in fleet.processes.items() if process.role == "cpu"]

    @property
    def kills(self) -> Mapping[str, Kill]:
        return {
            STAGE: self._kill_stage,
            "kill -9 of a worker": lambda rng: self._again(rng.choice(self._workers), signal.SIGKILL),
            "SIGTERM to a worker": lambda rng: self._again(rng.choice(self._workers), signal.SIGTERM),
            "kill -9 of the api": lambda _: self._again("api", signal.SIGKILL),
            "kill -9 of Postgres": self._kill_database,
            "a worker suspended for longer than its lease": self._suspend,
        }

    def processes(self) -> Mapping[str, psutil.Process]:
        return {name: psutil.Process(one.process.pid) for name, one in self._fleet.processes.items() if one.process is not None}

    def rows(self) -> Mapping[str, int]:
        named = "SELECT schemaname, relname FROM pg_stat_user_tables"
        return {
            str(name): int(str(self._fleet.query(f'SELECT count(*) FROM "{schema}"."{name}"')[0][0]))
            for schema, name in self._fleet.query(named)
        }

    def folders(self) -> Sequence[Path]:
        return (self._fleet.shared, *(process.data for process in self._fleet.processes.values()))

    def _again(self, name: str, number: int) -> None:
        self._fleet.processes[name].end(number, seconds=60)
        self._fleet.processes[name].launch()
        self._fleet.wait_until_up()

    def _kill_stage(self, rng: random.Random) -> None:
        worker = self.processes()[rng.choice(self._workers)]
        stages = [one for one in worker.children(recursive=True) if _name(one).startswith("stage ")]
        _kill(stages, signal.SIGKILL)

    def _kill_database(self, rng: random.Random) -> None:
        self._database.kill()
        time.sleep(rng.uniform(0.0, LEASE_SECONDS * 2))
        self._database.start()
        self._fleet.wait_until_up()

    def _suspend(self, rng: random.Random) -> None:
        worker = self._fleet.processes[rng.choice(self._workers)]
        worker.send(signal.SIGSTOP)
        time.sleep(LEASE_SECONDS * 2)
        worker.send(signal.SIGCONT)
        self._fleet.wait_until_up()


def _kill(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _kill_pid(find: Callable[[], int]) -> None:
    with contextlib.suppress(StopIteration, ProcessLookupError, psutil.NoSuchProcess):  # it may be about to start
        os.kill(find(), signal.SIGKILL)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""
