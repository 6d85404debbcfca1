"""A database that is damaged or gone: the server says so, and no job whose folder is there is dropped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.server_process import ROOT, running


def test_a_start_on_a_damaged_database_says_what_to_do_in_two_lines(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "service.sqlite").write_bytes(b"no database" * 1000)
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--data-dir", str(data)]
    ended = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    error, fix = ended.stderr.splitlines()[-2:]
    assert error.startswith("error: database ")
    assert "damaged" in error
    assert fix.startswith("fix: ")
    assert "--rebuild" in fix
    assert "Traceback" not in ended.stderr


@pytest.mark.long
def test_jobs_whose_rows_are_lost_run_anew_and_are_named(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        first, second = server.submit(trials=2, seconds=0.5), server.submit(trials=0)
        server.wait_for_line("end trial/0")
        server.end(signal.SIGKILL)
        for file in server.data.glob("service.sqlite*"):
            file.unlink()
        (server.data / "jobs" / second / "inputs" / "model.onnx").chmod(0o644)
        (server.data / "jobs" / second / "inputs" / "model.onnx").unlink()
        (server.data / "jobs" / second / "inputs" / "model.onnx").write_bytes(b"damaged")
        server.start()
        done = server.wait(first)
        assert done["state"] == "succeeded", done
        broken = server.wait(second)
        assert broken["state"] == "failed"
        assert isinstance(broken["error"], dict)
        assert "model" in broken["error"]["detail"]
        assert broken["error"]["fix"] == "Submit the job again."
        log = server.log.read_text()
        for job_id in (first, second):
            assert f"job {job_id}: the database has lost it" in log
        assert "database service.sqlite: it is new" in log


@pytest.mark.long
def test_a_job_whose_folder_is_lost_fails_with_a_reason(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        job_id = server.submit(trials=1, seconds=20)
        server.wait_for_line("begin trial/0")
        server.end(signal.SIGKILL)
        (server.data / "jobs").rename(tmp_path / "elsewhere")
        server.start()
        lost = server.wait(job_id)
        assert lost["state"] == "failed"
        assert isinstance(lost["error"], dict)
        assert "folder is gone" in lost["error"]["detail"]
