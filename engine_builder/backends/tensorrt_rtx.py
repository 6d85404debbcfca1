"""The target ``tensorrt-rtx``: plans built ahead of time for a type of GPU, on any machine.

Without a GPU a plan cannot run. Accuracy then comes from the same explicit graph in ONNX Runtime (``simulate``), and latency from a
roofline over the kernels that the build lists (``predicted``): a prediction, and called one.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from calibration.codec import json_from_value, value_from_json
from calibration.precision import TENSORRT_SCHEME, Precision
from engine_builder.backends.base import Capabilities, Engine, Runner
from engine_builder.backends.gpus import Gpu, gpu_by_name, known_gpus
from engine_builder.backends.kernels import Kernel
from engine_builder.backends.ort_cpu import OrtCpuRunner
from engine_builder.backends.roofline import PredictedLatency, predicted_kernels, predicted_latency
from engine_builder.backends.tensorrt_rtx_build import BuildOptions, build_plan
from engine_builder.config import ShapeRange
from engine_builder.errors import BuildError, UnsupportedTargetError

TARGET = "tensorrt-rtx"
# What tensorrt-rtx 1.7 can build for: Turing, Ampere, Ada and RTX Blackwell; not Hopper (9.0), nor data center Blackwell (10.x).
COMPUTE_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WORKSPACE_BYTES = 4 * 2**30  # where no GPU says how much memory it has
_KERNELS_SUFFIX = ".kernels.json"


def supported_gpus() -> tuple[Gpu, ...]:
    """Return the known GPUs that the target can build for."""
    return tuple(gpu for gpu in known_gpus() if gpu.compute_capability in COMPUTE_CAPABILITIES)


class TensorRtRtxBackend:
    """Builds plans for one type of GPU; without one, for all that tensorrt-rtx targets, and then nothing can be predicted."""

    def __init__(self, gpu: str | None = None, *, workspace_bytes: int | None = None) -> None:
        """Find the GPU and the package; nothing of the package is loaded yet.

        Args:
            gpu: The product name, vendor's words optional.
            workspace_bytes: Most scratch memory that a kernel may ask for; a quarter of the GPU's memory by default.

        Raises:
            UnsupportedTargetError: The GPU is unknown or not supported, or the package is not installed.
        """
        self._gpu = None if gpu is None else gpu_by_name(gpu)
        if self._gpu is not None and self._gpu.compute_capability not in COMPUTE_CAPABILITIES:
            major, minor = self._gpu.compute_capability
            expected = ", ".join(f"{one}.{two}" for one, two in COMPUTE_CAPABILITIES)
            raise UnsupportedTargetError(
                f"gpu: {self._gpu.name} has compute capability {major}.{minor}, expected one that {TARGET} can build for: {expected}",
                fix=f"use the target 'tensorrt' on a machine with this GPU, or one of {', '.join(gpu.name for gpu in supported_gpus())}",
            )
        if importlib.util.find_spec("tensorrt_rtx") is None:
            raise UnsupportedTargetError(
                f"target: found no tensorrt_rtx package, expected it for the target {TARGET!r}", fix="install onnx-trt-optimizer[rtx]"
            )
        memory = _WORKSPACE_BYTES if self._gpu is None else int(self._gpu.memory_gb * 2**30 / 4)
        self._workspace_bytes = memory if workspace_bytes is None else workspace_bytes

    @property
    def gpu(self) -> Gpu:
        """The GPU that is built for.

        Raises:
            UnsupportedTargetError: None was named.
        """
        if self._gpu is None:
            raise UnsupportedTargetError(f"gpu: found none, expected the name of one to predict {TARGET} latencies for", fix="name the GPU")
        return self._gpu

    @property
    def capabilities(self) -> Capabilities:
        """FP16 baseline; INT8, FP8 where the GPU has it, INT4 weights; predicted latency."""
        low = (Precision.INT8, Precision.FP8, Precision.INT4)
        return Capabilities(
            TARGET, Precision.FP16, tuple(p for p in low if self._gpu is None or self._gpu.has(p)), TENSORRT_SCHEME, "predicted"
        )

    def build(
        self,
        explicit: Path,
        output: Path,
        *,
        shapes: Mapping[str, ShapeRange] | None = None,
        on_step: Callable[[str], bool] = lambda phase: True,
    ) -> Engine:
        """Build the plan of an explicit model and write it to ``output``, its kernels beside it; on failure nothing is left there.

        Args:
            explicit: A strongly typed model in the TensorRT dialect.
            output: The plan's file.
            shapes: Sizes of each dynamic input.
            on_step: Called with a phase's name at each of the builder's steps; returns whether to go on.

        Raises:
            BuildError: The model cannot be read, parsed or built.
            StageCancelledError: ``on_step`` said so.
        """
        weighted = _weighted_nodes(explicit)
        capability = None if self._gpu is None else self._gpu.compute_capability
        plan = build_plan(explicit, BuildOptions(capability, shapes or {}, self._workspace_bytes, on_step))
        listed = {"kernels_at_opt": json_from_value(plan.kernels_at_opt), "weighted": weighted}
        kernels = output.with_name(output.name + _KERNELS_SUFFIX)
        try:
            _write(kernels, json.dumps(listed).encode())
            _write(output, plan.data)
        except BaseException:
            output.unlink(missing_ok=True)
            kernels.unlink(missing_ok=True)
            raise
        return Engine(output, (kernels,), len(plan.data), plan.kernels, plan.kernels_at_opt)

    def predicted(self, engine: Engine) -> PredictedLatency:
        """Return the predicted latency of an engine at the sizes ``opt``.

        Raises:
            UnsupportedTargetError: No GPU was named.
            EngineError: A kernel's time cannot be told.
        """
        return predicted_latency(engine.kernels_at_opt, self.gpu)

    def kernel_times(self, engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, threads: int, scratch: Path) -> dict[str, float]:
        """Return predicted milliseconds by ONNX node at the sizes ``opt``; feeds, threads and scratch are not needed.

        Raises:
            BuildError: The list of kernels is not beside the engine.
            UnsupportedTargetError: No GPU was named.
            EngineError: A kernel's time cannot be told.
        """
        path = engine.with_name(engine.name + _KERNELS_SUFFIX)
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))
            kernels = value_from_json(tuple[Kernel, ...], listed["kernels_at_opt"])
            weighted = value_from_json(tuple[str, ...], listed["weighted"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise BuildError(
                f"{engine.name}: its list of kernels, {path.name}, cannot be read: {exc}", fix="build the engine again"
            ) from exc
        return predicted_kernels(kernels, self.gpu, weighted=frozenset(weighted))

    def open(self, engine: Path, *, threads: int) -> Runner:
        """Refuse: a plan runs on its GPU only, and running it there is not part of this target yet.

        Raises:
            BuildError: Always.
        """
        raise BuildError(
            f"{engine.name}: a plan for {TARGET} was to be run, expected the explicit model: plans are built ahead of time here",
            fix="measure accuracy on the explicit model with simulate()",
        )

    def simulate(self, explicit: Path, *, threads: int) -> Runner:
        """Return a runner of the explicit model in ONNX Runtime on the CPU: the same Q/DQ, casts and weights, other kernels.

        Sums are in float32 and halves are rounded where the graph says so, so results agree with a GPU's to rounding, not bit for bit.

        Args:
            explicit: What ``build`` takes.
            threads: CPU threads, at least 1.

        Raises:
            BuildError: ONNX Runtime cannot load it.
        """
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1")
        return OrtCpuRunner(explicit, threads=threads)


def _weighted_nodes(explicit: Path) -> list[str]:
    try:
        model = onnx.load_model(explicit, load_external_data=False)
    except Exception as exc:  # protobuf's decode error is not exported by onnx
        raise BuildError(f"{explicit.name}: not an ONNX model: {exc}", fix="write the explicit model again") from exc
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            data = explicit.parent / ExternalDataInfo(tensor).location
            if not data.is_file():
                raise BuildError(
                    f"{explicit.name}: initializer {tensor.name!r} lies in {data.name}, which was not found",
                    fix="write the explicit model again",
                )
    return [node.name for node in model.graph.node if node.op_type in _WEIGHTED and node.name]


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
