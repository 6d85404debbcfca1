"""What stands for a plan of TensorRT-RTX where its GPU is not: its explicit model in ONNX Runtime, and the kernels that were listed."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.codec import value_from_json
from engine_builder.backends.gpu.catalogue import Gpu
from engine_builder.backends.kernels import Kernel
from engine_builder.backends.nvidia.roofline import PredictedLatency, predicted_latency
from engine_builder.backends.onnxruntime.cpu import OrtCpuRunner
from engine_builder.errors import BuildError, EngineError

KERNELS_SUFFIX = ".kernels.json"  # of the file beside a plan that lists its kernels


@dataclass(frozen=True, slots=True)
class ListedKernels:
    """What lies beside a plan."""

    explicit: str  # name of the explicit model, in the same folder
    kernels_at_opt: tuple[Kernel, ...]


class SimulatedPlan:
    """Stands for a plan that cannot run here: the same Q/DQ, casts and weights in ONNX Runtime, other kernels.

    Sums are in float32 and what is written in 16 bits is rounded (``engine_builder.qdq.checks.simulation``), so results agree with a GPU's
    to rounding, not bit for bit. The session is opened by the first run.
    """

    def __init__(self, engine: Path, listed: ListedKernels, threads: int) -> None:
        """Remember what to open."""
        self._explicit, self._listed, self._threads = engine.with_name(listed.explicit), listed, threads
        self._runner: OrtCpuRunner | None = None
        self._is_closed = False
        self._opening = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.generic], ...]:
        """Return the explicit model's outputs for one batch.

        Raises:
            BuildError: ONNX Runtime cannot load the explicit model.
            EngineError: It failed, or the plan is closed.
        """
        with self._opening:
            if self._is_closed:
                raise EngineError(f"{self._explicit.name}: the engine is closed", fix="open it again")
            if self._runner is None:
                self._runner = OrtCpuRunner(self._explicit, threads=self._threads, as_written=True)
        return self._runner.run(feeds)

    def close(self) -> None:
        """Drop the session."""
        self._is_closed = True
        if self._runner is not None:
            self._runner.close()

    def predicted(self, gpu: Gpu) -> PredictedLatency:
        """Return the latency on a GPU at the sizes ``opt``.

        Raises:
            EngineError: A kernel's time cannot be told.
        """
        return predicted_latency(self._listed.kernels_at_opt, gpu)


def listed_kernels(engine: Path) -> ListedKernels:
    """Return what lies beside a plan.

    Raises:
        BuildError: It cannot be read.
    """
    path = engine.with_name(engine.name + KERNELS_SUFFIX)
    try:
        return value_from_json(ListedKernels, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BuildError(f"{engine.name}: its list of kernels, {path.name}, cannot be read: {exc}", fix="build the engine again") from exc
