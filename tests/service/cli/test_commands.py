"""The commands that speak to a server, against the one with the fake pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.__main__ import main
from tests.fakes import TAKEN, fake_model
from tests.service.conftest import Server

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(server: Server, capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        status = main([*map(str, arguments), "--server", str(server.client.base_url)])
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[str | Path]]:
    def make(**plan: object) -> list[str | Path]:
        (tmp_path / "net.onnx").write_bytes(fake_model(**plan))
        (tmp_path / "calibration.npz").write_bytes(b"numbers")
        return [tmp_path / "net.onnx", "--calibration", tmp_path / "calibration.npz"]

    return make


def test_submit_prints_the_id_alone(run: Run, server: Server, files: Callable[..., list[str | Path]]) -> None:
    status, out, err = run("submit", *files())
    assert (status, err) == (0, "")
    assert server.wait(out.strip())["state"] == "succeeded"


def test_submit_sends_a_metric_of_ones_own(run: Run, server: Server, files: Callable[..., list[str | Path]], tmp_path: Path) -> None:
    (tmp_path / "metric.onnx").write_bytes(b"my graph")
    status, out, _ = run("submit", *files(), "--metric-model", tmp_path / "metric.onnx")
    assert status == 0
    assert server.wait(out.strip())["state"] == "succeeded"
    assert server.client.get(f"/v1/jobs/{out.strip()}/engine").content.endswith(b" scored by my graph")


@pytest.mark.parametrize(("flag", "key", "value"), [("--min-speedup", "min_speedup", 1.5), ("--max-latency-ms", "max_latency_ms", 2.0)])
def test_how_fast_an_engine_must_be_is_a_flag(
    run: Run, server: Server, files: Callable[..., list[str | Path]], flag: str, key: str, value: float
) -> None:
    status, out, _ = run("submit", *files(), flag, str(value))
    assert status == 0
    config = server.wait(out.strip())["config"]
    assert isinstance(config, dict)
    assert config["objective"][key] == value


def test_a_flag_for_speed_beside_a_budget_is_refused(run: Run, files: Callable[..., list[str | Path]], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"accuracy": {"min_relative": 0.99}}')
    status, out, err = run("submit", *files(), "--min-speedup", "2", "--config", tmp_path / "config.json")
    assert (status, out) == (2, "")
    assert "found objective together with accuracy.min_relative" in err


def test_same_idempotency_key_gives_the_same_job(run: Run, files: Callable[..., list[str | Path]]) -> None:
    arguments = ["submit", *files(trials=1), "--idempotency-key", "the-same"]
    assert run(*arguments)[:2] == run(*arguments)[:2]


def test_watch_shows_progress_lines_and_the_result(run: Run, server: Server) -> None:
    job = server.submit(trials=2, seconds=0.2)
    status, out, err = run("watch", str(job["id"]))
    assert status == 0
    assert "A faster engine is inside the budget" in out
    assert err.splitlines()[-1].startswith("100% succeeded")
    assert "trial 1" in err
    assert err.count("     output 'y' is taken for logits (its name); outputs: {\"y\": KIND} says otherwise\n") == 1


def test_a_running_job_says_what_outputs_were_taken_for(server: Server) -> None:
    job = server.submit(trials=1, seconds=20)
    assert job["outputs"] is None  # nothing is read before the answer
    deadline = time.monotonic() + 15
    while (now := server.wait(job["id"], "queued", "running"))["outputs"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert now["outputs"] == [
        {
            "name": "y",
            "kinds": ["logits"],
            "why": "its name",
            "measure": "best class kept",
            "key": 'outputs: {"y": KIND}',
            "in_words": TAKEN.sentence,
        }
    ]
    server.client.post(f"/v1/jobs/{job['id']}/cancel")


def test_failed_job_exits_as_its_error_would(run: Run, files: Callable[..., list[str | Path]]) -> None:
    status, out, err = run("submit", *files(fail="input"), "--watch")
    assert status == 2
    assert len(out.splitlines()) == 1
    assert err.splitlines()[-2:] == ["error: model: it is only a fake", "fix: Send a real one."]


def test_fault_of_the_service_exits_1(run: Run, server: Server) -> None:
    job = server.submit(fail="bug")
    status, _, err = run("watch", str(job["id"]))
    assert status == 1
    assert "Traceback" not in err


def test_cancelled_job_is_said_to_be(run: Run, server: Server) -> None:
    job = server.submit(trials=3, seconds=20)
    server.wait(job["id"], "running")
    assert run("cancel", str(job["id"]))[:2] == (0, "cancelled\n")
    assert run("cancel", str(job["id"]))[:2] == (0, "cancelled\n")
    status, _, err = run("watch", str(job["id"]))
    assert status == 1
    assert "was cancelled" in err
    status, _, err = run("download", str(job["id"]), "--output", "unused")
    assert status == 2
    assert "cancelled" in err


def test_unknown_job_exits_2(run: Run) -> None:
    for command in ("watch", "cancel"):
        status, _, err = run(command, "no-such-job")
        assert status == 2
        assert "no-such-job" in err


def test_targets_of_the_server_are_listed(run: Run) -> None:
    assert run("targets")[1].startswith("onnxruntime-cpu  precisions: fp32, int8")
