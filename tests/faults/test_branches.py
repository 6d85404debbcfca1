"""A job for two types of GPU on one server, which is killed in the middle of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server_process import ServerProcess, wait_until

CONFIG = json.dumps({"target": "tensorrt-rtx", "gpus": ["L4", "RTX 4090"]})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, environment={"FAKE_KEPT": "inspect", "ONNX_TRT_OPTIMIZER_CACHE_BYTES": "0"})
    server.start()
    yield server
    server.close()


def engines_of(job: dict[str, object]) -> list[str]:
    result = job["result"]
    assert isinstance(result, dict)
    return sorted(one["engine"]["name"] for one in result["engines"].values())


def test_one_server_makes_one_engine_after_the_other_and_goes_on_after_a_kill(server: ServerProcess) -> None:
    job_id = server.submit(CONFIG, trials=2, seconds=0.5)
    server.wait_for_line("begin trial/1")
    server.end(signal.SIGKILL)
    server.start()
    job = server.wait(job_id)
    assert job["state"] == "succeeded", job
    assert engines_of(job) == ["L4/engine.onnx", "RTX-4090/engine.onnx"]
    counts = server.counts()
    assert counts["begin inspect"] == 1  # for both
    assert counts["end trial/0"] == counts["end trial/1"] == counts["end report"] == 2
    wait_until(lambda: list((server.data / "jobs").iterdir()) == [], 10)


@pytest.mark.long
def test_after_a_loss_of_the_database_job_and_branches_are_found_in_their_folders(server: ServerProcess) -> None:
    job_id = server.submit(CONFIG, trials=1, seconds=2.0)
    server.wait_for_line("begin trial/0")
    server.end(signal.SIGKILL)
    for path in server.data.glob("service.sqlite*"):
        path.unlink()
    server.start()
    job = server.wait(job_id)
    assert job["state"] == "succeeded", job
    assert engines_of(job) == ["L4/engine.onnx", "RTX-4090/engine.onnx"]
    assert [row["id"] for row in server.client.get("/v1/jobs").json()["jobs"]] == [job_id]
