"""One server for each module of tests that asks for it, in this process, on a free port, with the fake pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import uvicorn

from service.api.app import create_app
from service.jobs.resources import Deps
from service.settings import Settings
from tests.fakes import fake_model
from tests.service.launch_server import fake_deps


@dataclass(frozen=True)
class Server:
    """A running server and a client of it."""

    client: httpx.Client
    deps: Deps
    record: Path

    def submit(self, **plan: object) -> dict[str, object]:
        """Submit a job whose fake model says ``plan``."""
        answer = self.client.post("/v1/jobs", files={"model": fake_model(**plan), "calibration": b"numbers"})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def wait(self, job_id: object, *states: str, seconds: float = 15) -> dict[str, object]:
        """Return the job once it is in one of these states."""
        return wait_for_state(self.client, str(job_id), *states, seconds=seconds)

    def has_cleaned_up(self, job_id: object, seconds: float = 15) -> bool:
        """Return whether the folder that a job worked in is removed, which happens after its state is told."""
        deadline = time.monotonic() + seconds
        while (is_there := self.deps.workspace(str(job_id)).exists()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not is_there

    def delete(self, job_id: object, seconds: float = 15) -> int:
        """Delete a job and return the status of the answer, once it is not that the last stage is still ending."""
        deadline = time.monotonic() + seconds
        while (status := self.client.delete(f"/v1/jobs/{job_id}").status_code) == 409 and time.monotonic() < deadline:
            time.sleep(0.05)
        return status


def wait_for_state(client: httpx.Client, job_id: str, *states: str, seconds: float = 15) -> dict[str, object]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = dict(client.get(f"/v1/jobs/{job_id}").json())
        if job["state"] in (states or ("succeeded", "failed", "cancelled")):
            return job
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s the job is {job}")


@pytest.fixture(scope="module")  # not longer: hypothesis, in other modules, objects to the random numbers of its threads
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@contextmanager
def running_server(
    folder: Path,
    *,
    kept: frozenset[str] = frozenset(),
    cache_bytes: int = 2**20,
    api_key: str | None = None,
    database_url: str | None = None,
    object_store: str | None = None,
    downloads: str = "stream",
) -> Iterator[Server]:
    """Run a server in this process, which may have one at a time; ``kept`` are the stages whose results serve other jobs."""
    settings = Settings(data_dir=folder / "data", port=0, max_upload_bytes=4 * 2**20, cache_bytes=cache_bytes, api_key=api_key)
    if database_url is not None:
        shared_dir = folder / "shared" if object_store is None else None
        settings = replace(settings, database_url=database_url, shared_dir=shared_dir, object_store=object_store, downloads=downloads)
    deps = fake_deps(settings, folder / "record", kept=kept)
    web = uvicorn.Server(uvicorn.Config(create_app(settings, deps), port=0, log_level="warning"))
    thread = threading.Thread(target=web.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not web.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert web.started
    port = web.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield Server(client, deps, folder / "record")
    web.should_exit = True
    thread.join(20)
    deps.close()
    assert not thread.is_alive()
