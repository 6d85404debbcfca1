from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

import psutil
import pytest

from service.worker.child_main import RESULT_NAME, Envelope
from service.worker.stage_process import SpawnedProcess, StageProcess, scratch_folder, stage_environment
from service.worker.warm_parent import WarmParent
from tests.process_state import is_running
from tests.service.worker.running import STAGES


def wait_for_end(process: StageProcess, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not process.has_ended():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class StageProcessContract(ABC):
    """What ``run_in_child`` relies on."""

    @abstractmethod
    def launch(self, stage: str, stdin: Path, scratch: Path) -> StageProcess:
        """Start a stage."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "scratch").mkdir()
        return tmp_path

    def start(self, stage: str, folder: Path, **request: object) -> StageProcess:
        envelope: Envelope = {
            "stage": stage,
            "request": request,
            "stages": STAGES,
            "workspace": str(folder),
            "scratch": str(folder / "scratch"),
            "memory_bytes": 2 * 2**30,
            "cpu_seconds": None,
            "file_bytes": None,
            "parent_pid": os.getpid(),
        }
        (folder / "stdin").write_text(json.dumps(envelope))
        return self.launch(stage, folder / "stdin", folder / "scratch")

    def close(self, process: StageProcess) -> int:
        process.kill_group()
        status = process.wait()
        process.stdout.close()
        process.stderr.close()
        return status

    def test_its_result_is_in_its_scratch_folder_and_its_words_in_its_pipes(self, folder: Path) -> None:
        process = self.start("print_garbage", folder)
        wait_for_end(process)
        assert json.loads((folder / "scratch" / RESULT_NAME).read_text()) == {"result": {"fine": True}}
        assert json.loads(process.stdout.readline()) == {"progress": 0.25, "message": "before"}
        assert b"printed by native code" in process.stderr.read()
        assert self.close(process) == 0

    @pytest.mark.parametrize(("stage", "status"), [("echo", 0), ("leave", 3), ("kill_itself", -9), ("crash", -11)])
    def test_status_says_how_it_ended(self, folder: Path, stage: str, status: int) -> None:
        process = self.start(stage, folder)
        wait_for_end(process)
        assert self.close(process) == status

    def test_its_id_is_not_free_before_it_is_waited_for(self, folder: Path) -> None:
        process = self.start("fork", folder)
        wait_for_end(process)
        leader = os.getpgid(int((folder / "pid.json").read_text()))
        assert psutil.Process(leader).status() == psutil.STATUS_ZOMBIE
        assert self.close(process) == 0
        assert not psutil.pid_exists(leader)

    @pytest.mark.parametrize("waits", [True, False])
    def test_killing_its_group_ends_it_and_what_it_left_behind(self, folder: Path, *, waits: bool) -> None:
        process = self.start("fork", folder, wait=waits)
        deadline = time.monotonic() + 20
        while not (folder / "pid.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if not waits:
            wait_for_end(process)
        left = int((folder / "pid.json").read_text())
        assert self.close(process) == (-9 if waits else 0)
        deadline = time.monotonic() + 5
        while is_running(left):
            assert time.monotonic() < deadline
            time.sleep(0.01)


class TestSpawnedProcess(StageProcessContract):
    def launch(self, stage: str, stdin: Path, scratch: Path) -> StageProcess:
        with stdin.open("rb") as stream:
            return SpawnedProcess(stage, stream, scratch)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what a warm parent needs")
class TestForkedProcess(StageProcessContract):
    @pytest.fixture(autouse=True)
    def _keep(self, warm_parent: WarmParent) -> None:
        self.parent = warm_parent

    def launch(self, stage: str, stdin: Path, scratch: Path) -> StageProcess:
        with stdin.open("rb") as stream:
            return self.parent.fork(stage, stream, scratch)


def test_runtimes_are_told_not_to_report_to_their_makers() -> None:
    assert stage_environment()["ORT_DISABLE_TELEMETRY"] == "1"


def test_stages_find_the_packages_of_this_checkout_first() -> None:
    root = str(Path(__file__).resolve().parents[3])
    assert stage_environment()["PYTHONPATH"].split(os.pathsep)[0] == root


def test_an_interrupt_while_its_folder_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkdtemp, []

    def interrupted(prefix: str, dir: Path) -> str:
        made.append(make(prefix=prefix, dir=dir))
        signal.raise_signal(signal.SIGINT)
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path, "scratch-"):
        pytest.fail("the stage would begin")
    assert len(made) == 1
    assert list(tmp_path.iterdir()) == []
