"""Engines on the GPU of this machine: opened, timed in turns, and under which conditions. Not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from calibration.codec import json_from_value
from engine_builder.backends.base import Runner
from engine_builder.backends.gpu.cuda_runtime import CudaRuntime
from engine_builder.backends.gpu.devices import open_cuda
from engine_builder.backends.gpu.state import open_gpu_monitor
from engine_builder.backends.nvidia.gpu_timing import time_engines
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.errors import BuildError
from engine_builder.timing import Timing, TimingPlan


class LocalGpu:
    """The first visible GPU, opened when first needed, and the runtime whose plans run on it."""

    def __init__(self, load: Callable[[], ModuleType], open_gpu: Callable[[], CudaRuntime] = open_cuda) -> None:
        """Remember where both come from; nothing is loaded yet.

        Args:
            load: Returns the module ``tensorrt``, or ``tensorrt_rtx``, which has the same interface.
            open_gpu: Opens the GPU.
        """
        self._load, self._open_gpu = load, open_gpu
        self._cuda: CudaRuntime | None = None
        self._conditions: dict[str, object] = {}

    @property
    def cuda(self) -> CudaRuntime:
        """The GPU.

        Raises:
            UnsupportedTargetError: No CUDA package is installed.
            EngineError: There is no driver or no GPU.
        """
        if self._cuda is None:
            self._cuda = self._open_gpu()
        return self._cuda

    @property
    def module(self) -> ModuleType:
        """The runtime's package.

        Raises:
            UnsupportedTargetError: It is missing or too old.
        """
        return self._load()

    def open(self, engine: Path, *, weight_budget_bytes: int | None = None) -> TensorRtRunner:
        """Return a runner of a plan.

        Args:
            engine: The plan.
            weight_budget_bytes: See ``TensorRtRunner``.

        Raises:
            BuildError: The runtime cannot load the file, or it is a model and not an engine.
        """
        if engine.suffix == ".onnx":
            raise BuildError(f"{engine.name}: a model, expected an engine", fix="build it first")
        return TensorRtRunner(self.module, engine, self.cuda, weight_budget_bytes=weight_budget_bytes)

    def timings(self, runners: Mapping[str, Runner], feeds: Mapping[str, NDArray[np.generic]], plan: TimingPlan) -> Mapping[str, Timing]:
        """Return the GPU time of each engine, in turns, by CUDA events: rounds end when the plan says so, or with its seconds.

        What may keep the times from repeating (MIG, other processes, a clock held back) is in ``environment`` afterwards.

        Raises:
            EngineError: The GPU stayed in use, or an engine failed.
        """
        monitor = open_gpu_monitor(self.cuda.device.pci_bus_id)
        opened = {name: _opened_here(runner) for name, runner in runners.items()}
        found = time_engines(opened, feeds, self.cuda, monitor, seconds=plan.seconds, enough=plan.enough)
        self._conditions = {
            "warnings": list(found.warnings),
            "driver": found.info.driver if found.info is not None else None,
            "transfers_ms": {name: json_from_value(transfers) for name, transfers in found.transfers.items()},
        }
        return {name: timing.timing for name, timing in found.timings.items()}

    def environment(self) -> dict[str, object]:
        """Return the GPU and, once engines were timed, under which conditions."""
        device = self.cuda.device
        return {
            "gpu": device.name,
            "gpu_uuid": device.uuid,
            "compute_capability": ".".join(map(str, device.compute_capability)),
            "cuda": self.cuda.package,
            "clock": "CUDA events",
            **self._conditions,
        }


def _opened_here(runner: Runner) -> TensorRtRunner:
    if not isinstance(runner, TensorRtRunner):
        raise TypeError(f"found a {type(runner).__name__}, expected a runner that this GPU opened")
    return runner
