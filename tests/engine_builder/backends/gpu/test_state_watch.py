"""A GPU's state is read beside a timing, never in its way, and what cannot be read ends nothing."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from engine_builder.backends.gpu.state import GpuInfo, GpuSample
from engine_builder.backends.gpu.state_watch import StateWatch
from engine_builder.errors import EngineError

INFO = GpuInfo("GPU-1", "NVIDIA Fake 1", "580.65", False, 2040)


@dataclass
class Counted:
    """A monitor that notes the thread of each reading, and may wait or fail in it."""

    is_cheap: bool = True
    before: Callable[[int], None] = lambda reading: None
    threads: list[int] = field(default_factory=list)

    def info(self) -> GpuInfo:
        return INFO

    def sample(self) -> GpuSample:
        self.threads.append(threading.get_ident())
        self.before(len(self.threads))
        return GpuSample(1000 + len(self.threads), None, None, None, (), ())


def test_a_cheap_monitor_is_read_by_a_thread_of_its_own() -> None:
    read = threading.Event()
    monitor = Counted(before=lambda reading: read.set() if reading == 3 else None)
    with StateWatch(monitor, seconds=0.001) as watch:
        assert read.wait(10)
        assert watch.latest() is not None
    here = threading.get_ident()
    assert monitor.threads[0] == monitor.threads[-1] == here  # before and after
    assert here not in monitor.threads[1:-1]
    assert watch.info == INFO


def test_whoever_times_never_waits_for_a_reading() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def stuck(reading: int) -> None:
        if reading == 2:
            asked.set()
            assert go_on.wait(10)

    with StateWatch(Counted(before=stuck), seconds=0.001) as watch:
        assert asked.wait(10)  # the second reading does not end
        found = watch.latest()
        assert found is not None
        assert found.sm_clock_mhz == 1001
        go_on.set()


def test_a_monitor_that_starts_processes_is_read_before_and_after_alone() -> None:
    monitor = Counted(is_cheap=False)
    with StateWatch(monitor, seconds=0.0) as watch:
        assert len(monitor.threads) == 1
    assert len(monitor.threads) == 2
    found = watch.latest()
    assert found is not None
    assert found.sm_clock_mhz == 1002


@pytest.mark.parametrize(
    "failure",
    [
        EngineError("the driver is gone", fix="none"),
        subprocess.TimeoutExpired("nvidia-smi", 30),
        ValueError("could not convert string to float: 'ERR!'"),
        FileNotFoundError("nvidia-smi"),
    ],
)
def test_a_state_that_cannot_be_read_is_not_known(failure: Exception) -> None:
    def fail(reading: int) -> None:
        raise failure

    with StateWatch(Counted(before=fail), seconds=0.001) as watch:
        assert watch.latest() is None
    assert watch.info == INFO
    assert watch.why_unknown


def test_without_a_monitor_nothing_is_known() -> None:
    with StateWatch(None) as watch:
        assert (watch.latest(), watch.info, watch.why_unknown) == (None, None, None)


def test_no_thread_is_left_behind_after_a_failure() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), StateWatch(Counted()):
        raise ZeroDivisionError
    assert threading.active_count() == before
