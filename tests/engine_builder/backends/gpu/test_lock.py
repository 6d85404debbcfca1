"""Two timings never run on one GPU at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine_builder.backends.gpu.lock import gpu_lock
from engine_builder.errors import EngineError


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
