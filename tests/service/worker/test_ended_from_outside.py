"""Stages that somebody else ends, and stages under which the disk fails: neither is a failure of the stage at once."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from engine_builder.errors import StageCancelledError, StageCrashedError, StageStorageError
from service.worker.child_process import StageLimits
from service.worker.warm_parent import WarmParent
from tests.long_cases import mostly_long
from tests.service.worker.running import LIMITS, running, warm


def runs_in(workspace: Path) -> int:
    return len((workspace / "runs.txt").read_text().splitlines())


@pytest.mark.parametrize("number", mostly_long([signal.SIGKILL, signal.SIGTERM]))
@pytest.mark.parametrize("is_forked", [False, True])
def test_a_stage_that_is_killed_from_outside_runs_once_more(
    tmp_path: Path, warm_parent: WarmParent, number: signal.Signals, *, is_forked: bool
) -> None:
    run = running(warm_parent if is_forked else None)
    assert run("be_killed", tmp_path, {"times": 1, "signal": number.value}) == {"runs": 2}


def test_one_that_is_killed_twice_has_crashed(tmp_path: Path) -> None:
    with pytest.raises(StageCrashedError, match="SIGKILL"):
        running(None)("be_killed", tmp_path, {"times": 9, "signal": signal.SIGKILL.value})
    assert runs_in(tmp_path) == 2


@pytest.mark.long
def test_the_death_of_the_parent_counts_as_one_of_the_two(tmp_path: Path) -> None:
    with warm() as parent:
        pid = running(parent)("look_around", tmp_path)["parent"]
        assert isinstance(pid, int)

        def kill_both(fraction: float, message: str) -> None:
            if parent.pid == pid:
                os.kill(pid, signal.SIGKILL)
            else:
                os.kill(int((tmp_path / "pid.json").read_text()), signal.SIGKILL)

        with pytest.raises(StageCrashedError, match="SIGKILL"):
            running(parent)("sleep", tmp_path, on_progress=kill_both)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_of_its_own_making_counts_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with pytest.raises(StageCrashedError, match=number.name):
        running(None)("be_killed", tmp_path, {"times": 1, "signal": number.value})
    assert runs_in(tmp_path) == 1


def test_under_a_limit_of_processor_time_a_kill_may_be_the_kernels_own_and_counts(tmp_path: Path) -> None:
    limits = StageLimits(LIMITS.memory_bytes, LIMITS.seconds, cpu_seconds=20)
    with pytest.raises(StageCrashedError, match="SIGKILL"):
        running(None)("be_killed", tmp_path, {"times": 1, "signal": signal.SIGKILL.value}, limits=limits)
    assert runs_in(tmp_path) == 1


def test_a_stop_that_comes_right_after_the_kill_ends_it(tmp_path: Path) -> None:
    note = tmp_path / "runs.txt"
    with pytest.raises(StageCancelledError):
        running(None)(
            "be_killed",
            tmp_path,
            {"times": 1, "signal": signal.SIGTERM.value},
            should_cancel=lambda: note.exists() and runs_in(tmp_path) > 0,
        )
    assert runs_in(tmp_path) == 1


@pytest.mark.parametrize(
    ("how", "words"), [("own", "No space left on device"), ("native", "Input/output error"), ("blamed", "No space left")]
)
def test_a_fault_of_the_disk_is_told_from_one_of_the_stage(tmp_path: Path, how: str, words: str) -> None:
    with pytest.raises(StageStorageError, match=words):
        running(None)("meet_full_disk", tmp_path, {"how": how})


def test_a_disk_that_takes_not_even_the_result_is_one_too(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    try:
        with pytest.raises(StageStorageError, match=r"not even its result"):
            running(None)("meet_full_disk", tmp_path, {"how": "filled"})
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
