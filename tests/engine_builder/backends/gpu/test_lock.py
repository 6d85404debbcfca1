"""Two timings never run on one GPU at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine_builder.backends.gpu.lock import FOLDER_VARIABLE, gpu_lock, lock_folder
from engine_builder.errors import EngineError
from service.worker.stage_process import scratch_environment, stage_environment


class Waiting:
    """A clock that only moves while someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_second_holder_waits_then_gives_up_and_names_the_first(tmp_path: Path) -> None:
    waiting = Waiting()
    with (
        gpu_lock("GPU-1", wait_s=0, folder=tmp_path),
        pytest.raises(EngineError, match=f"GPU GPU-1 is in use by process {os.getpid()} for over 2 s"),
        gpu_lock("GPU-1", wait_s=2, folder=tmp_path, clock=waiting.clock, sleep=waiting.sleep),
    ):
        pytest.fail("both held the GPU")
    assert waiting.now == pytest.approx(2.0, abs=0.11)


def test_other_gpus_are_free(tmp_path: Path) -> None:
    with gpu_lock("GPU-1", wait_s=0, folder=tmp_path), gpu_lock("GPU-2", wait_s=0, folder=tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"GPU-1.lock", "GPU-2.lock"}


def test_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), gpu_lock("GPU-1", wait_s=0, folder=tmp_path):
        raise ZeroDivisionError
    with gpu_lock("GPU-1", wait_s=0, folder=tmp_path):
        assert (tmp_path / "GPU-1.lock").read_text(encoding="ascii") == str(os.getpid())


def test_lock_is_taken_as_soon_as_the_holder_lets_go(tmp_path: Path) -> None:
    first = gpu_lock("GPU-1", wait_s=0, folder=tmp_path)
    first.__enter__()

    def let_go(seconds: float) -> None:
        first.__exit__(None, None, None)

    with gpu_lock("GPU-1", wait_s=60, folder=tmp_path, sleep=let_go):
        assert (tmp_path / "GPU-1.lock").exists()


HOLDER = """
import sys, time
from engine_builder.backends.gpu.lock import gpu_lock
with gpu_lock("GPU-1", wait_s=float(sys.argv[1]), on_wait=lambda holder: print("waits for", holder, flush=True)):
    print("holds", flush=True)
    sys.stdin.read()
"""


def stage(scratch: Path, wait_s: float) -> subprocess.Popen[str]:
    """Start a process that takes the lock as a stage of a job would find it: with a temporary folder of its own."""
    scratch.mkdir()
    command = [sys.executable, "-c", HOLDER, str(wait_s)]
    environment = stage_environment() | scratch_environment(scratch)
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_stages_of_two_jobs_exclude_each_other(tmp_path: Path) -> None:
    with stage(tmp_path / "one", 60) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "holds\n"
        with stage(tmp_path / "impatient", 0) as impatient:
            said, complaint = impatient.communicate(timeout=60)
        assert said == f"waits for {one.pid}\n"
        assert f"GPU GPU-1 is in use by process {one.pid}" in complaint
        with stage(tmp_path / "other", 60) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == f"waits for {one.pid}\n"
            one.kill()  # a holder that dies lets go
            assert other.communicate(timeout=60) == ("holds\n", "")


def test_the_folder_is_the_same_for_every_job_and_user(tmp_path: Path) -> None:
    closed, shared = tmp_path / "closed", tmp_path / "shared"
    closed.mkdir(mode=0o755)
    shared.mkdir()
    shared.chmod(0o1777)
    places = (tmp_path / "missing", closed, shared)
    assert lock_folder({"TMPDIR": str(tmp_path)}, places).parent == shared
    assert lock_folder({}, (tmp_path / "missing", closed)).parent == closed
    assert lock_folder({FOLDER_VARIABLE: "/srv/locks"}, places) == Path("/srv/locks")


def test_other_users_may_lock_the_files_but_not_remove_them(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with gpu_lock("GPU-1", wait_s=0, folder=tmp_path / "locks"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o1777
    assert stat.S_IMODE((tmp_path / "locks" / "GPU-1.lock").stat().st_mode) == 0o666


def test_a_link_in_place_of_a_lock_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "GPU-1.lock").symlink_to(tmp_path / "someone-elses-file")
    with pytest.raises(EngineError, match="no lock file for the GPU") as caught, gpu_lock("GPU-1", wait_s=0, folder=tmp_path):
        pytest.fail("took a link for the lock")
    assert FOLDER_VARIABLE in caught.value.fix
    assert not (tmp_path / "someone-elses-file").exists()
