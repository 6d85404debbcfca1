"""Engines are timed together, under the GPU's lock, with the conditions told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_builder.backends.gpu.lock import gpu_lock
from engine_builder.backends.gpu.state import GpuInfo, GpuMonitor, GpuSample
from engine_builder.backends.nvidia.gpu_timing import TimedEngines, time_engines
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.errors import EngineError
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_tensorrt import IExecutionContext, fake_tensorrt

FEEDS: dict[str, NDArray[Any]] = {"x": np.ones((2, 3), dtype=np.float32), "sizes": np.array([3], dtype=np.int64)}
QUIET = GpuSample(1500, 6251, 60, 70.0, (), ())


@dataclass
class FakeMonitor:
    sampled: GpuSample = QUIET
    is_cheap: bool = True
    mig: bool = False

    def info(self) -> GpuInfo:
        return GpuInfo("GPU-1", "NVIDIA Fake 1", "580.65", self.mig, 2040)

    def sample(self) -> GpuSample:
        return self.sampled


def timed(folder: Path, monitor: GpuMonitor | None, gpu: FakeGpu | None = None) -> TimedEngines:
    used = gpu if gpu is not None else FakeGpu()
    plan = folder / "engine.plan"
    plan.write_bytes(b"double")
    trt = fake_tensorrt(used)
    runners = {name: TensorRtRunner(trt, plan, used) for name in ("baseline", "candidate")}
    return time_engines(runners, FEEDS, used, monitor, seconds=0.0, wait_s=0, lock_folder=folder)


def test_engines_and_their_copies_are_timed_apart(tmp_path: Path) -> None:
    found = timed(tmp_path, FakeMonitor())
    assert set(found.timings) == set(found.transfers) == {"baseline", "candidate"}
    assert found.timings["candidate"].timing.median_ms == pytest.approx(1.0)
    assert found.transfers["candidate"].to_device_ms == pytest.approx(0.1)
    assert found.transfers["candidate"].to_host_ms == pytest.approx(0.2)
    assert found.warnings == ()


def test_gpu_in_use_by_another_job_is_not_timed(tmp_path: Path) -> None:
    with gpu_lock("GPU-1", wait_s=0, folder=tmp_path), pytest.raises(EngineError, match="GPU GPU-1 is in use"):
        timed(tmp_path, FakeMonitor())


def test_conditions_that_spoil_times_are_told(tmp_path: Path) -> None:
    noisy = GpuSample(1500, 6251, 83, 72.0, ("power cap",), (77, 12))
    assert timed(tmp_path, FakeMonitor(noisy, mig=True)).warnings == (
        "the GPU is divided (MIG): other instances share its clocks and power",
        "other processes use the GPU: 12, 77",
        "the clock was held back in 100% of the readings: power cap",
    )


def test_moving_clock_is_told_with_what_to_do(tmp_path: Path) -> None:
    clocks = iter([1200, *[1800] * 1000])

    class Moving(FakeMonitor):
        def sample(self) -> GpuSample:
            return GpuSample(next(clocks), None, None, None, (), ())

    gpu = FakeGpu()
    found = time_engines_for_long(tmp_path, Moving(is_cheap=False), gpu)  # read once before and once after
    assert found.warnings == ("the clock moved between 1200 and 1800 MHz: lock it with nvidia-smi -lgc",)


def time_engines_for_long(folder: Path, monitor: GpuMonitor, gpu: FakeGpu) -> TimedEngines:
    plan = folder / "engine.plan"
    plan.write_bytes(b"double")
    runner = TensorRtRunner(fake_tensorrt(gpu), plan, gpu)
    return time_engines({"baseline": runner}, FEEDS, gpu, monitor, seconds=0.25, wait_s=0, lock_folder=folder)


def test_missing_tools_are_told(tmp_path: Path) -> None:
    found = timed(tmp_path, None)
    assert found.info is None
    assert "nvidia-ml-py and nvidia-smi are not installed" in found.warnings[0]


def test_a_state_that_cannot_be_read_ends_no_timing_and_is_told(tmp_path: Path) -> None:
    class Broken(FakeMonitor):
        def info(self) -> GpuInfo:
            raise EngineError("the driver is gone", fix="none")

        def sample(self) -> GpuSample:
            raise EngineError("the driver is gone", fix="none")

    found = timed(tmp_path, Broken())
    assert found.timings["candidate"].timing.median_ms == pytest.approx(1.0)
    assert found.warnings == ("the state of the GPU is not known, or only in part: the driver is gone",)


def test_stream_of_the_timing_is_closed_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu()
    monkeypatch.setattr(IExecutionContext, "execute_async_v3", lambda context, stream: False)
    with pytest.raises(EngineError, match="the runtime refused to queue a run"):
        timed(tmp_path, FakeMonitor(), gpu)
    assert gpu.open_streams == 2  # those of the two runners
