"""The commands that speak to a server, against the one with the fake pipeline."""

from __future__ import annotations

import json
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


def test_jobs_are_listed_in_a_table_and_by_state(run: Run, server: Server, files: Callable[..., list[str | Path]]) -> None:
    done = server.wait(server.submit(trials=0)["id"])["id"]
    failed = server.wait(server.submit(fail="input")["id"])["id"]

    status, out, err = run("list")

    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split() == ["JOB", "STATE", "DONE", "CREATED", "TARGET", "OUTCOME"]
    assert [line.split()[:3] for line in lines[1:3]] == [[failed, "failed", lines[1].split()[2]], [done, "succeeded", "100%"]]
    assert lines[2].endswith("onnxruntime-cpu  improved")
    assert str(done) not in run("list", "--state", "failed")[1]
    assert len(run("list", "--limit", "1")[1].splitlines()) == 2


def test_no_jobs_are_told_as_that(run: Run) -> None:
    assert run("list", "--state", "queued") == (0, "no jobs\n", "")


def test_a_job_is_deleted_once_it_is_finished(run: Run, server: Server) -> None:
    running = str(server.submit(trials=1, seconds=30)["id"])
    status, _, err = run("delete", running)
    assert status == 2
    assert "fix: Cancel it first, then delete it.\n" in err
    server.client.post(f"/v1/jobs/{running}/cancel")
    done = str(server.wait(server.submit(trials=0)["id"])["id"])
    assert run("delete", done) == (0, f"deleted {done}\n", "")
    status, _, err = run("download", done, "--output", "nowhere")
    assert status == 2
    assert f"error: job {done}: it was deleted by a request" in err


def test_report_is_downloaded_and_shown(run: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    job_id = str(server.wait(server.submit(trials=0)["id"])["id"])
    path = tmp_path / "new" / "report.html"
    assert run("report", job_id, "--output", path.parent) == (0, f"{path}\n", "")
    assert path.read_text() == "<p>fake</p>"
    assert shown == []
    run("report", job_id, "--output", path.parent, "--open")
    assert shown == [path.resolve().as_uri()]
    failed = str(server.wait(server.submit(fail="input")["id"])["id"])
    status, _, err = run("report", failed)
    assert status == 2
    assert "it has no report" in err


def test_a_job_for_several_types_has_a_report_for_each(run: Run, server: Server) -> None:
    config = {"config": json.dumps({"target": "tensorrt-rtx", "gpus": ["L4", "RTX 4090"]})}
    answer = server.client.post("/v1/jobs", files={"model": fake_model(trials=0), "calibration": b"numbers"}, data=config)
    job_id = server.wait(answer.json()["id"], seconds=30)["id"]
    status, _, err = run("report", job_id)
    assert status == 2
    assert "it has a report for each type of GPU: L4/report.html, RTX-4090/report.html" in err


def test_watch_is_told_by_events(run: Run, server: Server) -> None:
    """It follows the job; what asks for it between two events is a look at the job, not a clock."""
    job_id = str(server.submit(trials=1, seconds=1)["id"])
    status, _, err = run("watch", job_id)
    assert status == 0
    assert "trial 0" in err
    figures = server.client.get("/metrics").text
    assert 'requests_total{method="GET",route="/v1/jobs/{job_id}/events",status="200"}' in figures


def test_engines_of_several_types_of_gpu_come_in_a_folder_each(
    run: Run, server: Server, files: Callable[..., list[str | Path]], tmp_path: Path
) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"target": "tensorrt-rtx", "gpus": ["L4", "RTX 4090"]}')
    status, out, _ = run("submit", *files(trials=0), "--config", config)
    assert status == 0
    job_id = out.strip()
    server.wait(job_id)
    status, out, err = run("download", job_id, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert {"L4/engine.onnx", "RTX-4090/engine.onnx"} <= {str(Path(line).relative_to(tmp_path / "out")) for line in out.splitlines()}
    result = server.client.get(f"/v1/jobs/{job_id}").json()["result"]
    assert json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8")) == result
    assert "RTX 4090: improved" in run("watch", job_id)[1]
