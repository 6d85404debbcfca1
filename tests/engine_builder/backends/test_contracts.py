"""The other implementations of a backend and of an open engine: ONNX Runtime's are tested with its own module."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from engine_builder.backends.base import Backend, Runner
from engine_builder.backends.gpu.devices import open_cuda
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend
from tests.engine_builder.backends.contracts import BackendContract, Feeds, RunnerContract
from tests.engine_builder.fake_gpu import FakeGpu
from tests.engine_builder.fake_levels import LevelledBackend, Levels
from tests.engine_builder.fake_tensorrt import fake_tensorrt


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx-cu13 is not installed")
class TestTensorRtRtx(BackendContract):
    """Without a GPU: plans are built and what runs is their explicit model."""

    needs_explicit = True

    def backend(self) -> Backend:
        return TensorRtRtxBackend("RTX 4090")


@pytest.mark.gpu
class TestTensorRt(BackendContract):
    def backend(self) -> Backend:
        pytest.importorskip("tensorrt", reason="tensorrt-cu13 is not installed")
        return TensorRtBackend(open_cuda().device.compute_capability)


class TestLevelledBackend(BackendContract):
    """What stands in for a backend whose engines of two levels differ."""

    def backend(self) -> Backend:
        return LevelledBackend(Levels(), final=True)


class TestTensorRtRunner(RunnerContract):
    """On a TensorRT and a GPU that pretend."""

    def opened(self, folder: Path) -> tuple[Runner, Feeds]:
        gpu = FakeGpu()
        plan = folder / "engine.plan"
        plan.write_bytes(b"double")
        return TensorRtRunner(fake_tensorrt(gpu), plan, gpu), {"x": np.ones((2, 3), np.float32), "sizes": np.array([3], np.int64)}
