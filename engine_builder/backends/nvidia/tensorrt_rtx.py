"""The target ``tensorrt-rtx``: plans built ahead of time for a type of GPU, on any machine.

Without a GPU a plan cannot run. Accuracy then comes from the same explicit graph in ONNX Runtime, and latency from a roofline over the
kernels that the build lists: a prediction, and called one.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from calibration.codec import json_from_value
from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from engine_builder.backends.atomic_file import write_atomically
from engine_builder.backends.base import Capabilities, Engine, RefusedNode, Runner, Source
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.backends.gpu.catalogue import Gpu, gpu_by_name, known_gpus, typical_conversion_ms
from engine_builder.backends.kernels import KernelTime
from engine_builder.backends.nvidia.layer_report import kernels_from_messages
from engine_builder.backends.nvidia.local_gpu import LocalGpu
from engine_builder.backends.nvidia.network_build import build_plan
from engine_builder.backends.nvidia.parser import refused_nodes
from engine_builder.backends.nvidia.roofline import PredictedLatency, kernel_milliseconds
from engine_builder.backends.nvidia.rtx.expected_kernels import expected_milliseconds
from engine_builder.backends.nvidia.rtx.simulated_plan import KERNELS_SUFFIX, SimulatedPlan, listed_kernels
from engine_builder.backends.nvidia.stripped.refit import note_weights
from engine_builder.config.builder_options import BuilderSupport
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.errors import BuildError, UnsupportedTargetError
from engine_builder.qdq.dialects.tensorrt import LOW_PRECISIONS, TensorRtDialect
from engine_builder.timing import MIN_GAIN, Timing, TimingPlan

TARGET = "tensorrt-rtx"
# What tensorrt-rtx 1.7 can build for: Turing, Ampere, Ada and RTX Blackwell; not Hopper (9.0), nor data center Blackwell (10.x).
COMPUTE_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
_WORKSPACE_BYTES = 4 * 2**30  # where no GPU says how much memory it has
_NO_KERNEL = frozenset({"NonMaxSuppression"})  # of TensorRT-RTX 1.7; TensorRT has one
_SECOND_KERNEL = (
    "TensorRT-RTX follows every INT8 convolution with a second kernel, for scales, bias and activation, which FP16 has in one kernel: "
    "convolution networks are seldom faster in INT8 there, transformers are"
)
BUILDER = BuilderSupport(
    frozenset({"workspace_mb"}),
    "its builder has one level of optimization, and its plans are made for one type of GPU and one version",
    {
        "profiles": "its latencies are predicted from a plan of one profile",
        "weight_streaming_mb": "its latencies are predicted with all weights on the GPU",
        "strip_weights": "its builder needs the GPU for plans without weights, and here they could not be run with their weights put back",
    },
)
BUILDER_HERE = dataclasses.replace(BUILDER, keys=BUILDER.keys | {"strip_weights"})  # where this machine has the GPU


def supported_gpus() -> tuple[Gpu, ...]:
    """Return the known GPUs that the target can build for."""
    return tuple(gpu for gpu in known_gpus() if gpu.compute_capability in COMPUTE_CAPABILITIES)


class TensorRtRtxBackend:
    """Builds plans for one type of GPU; without one, for all that tensorrt-rtx targets, and then nothing can be predicted.

    Where this machine has that GPU, plans run and are timed on it; elsewhere their accuracy is simulated and their latency predicted.
    """

    def __init__(self, gpu: str | None = None, *, options: BuildOptions | None = None, local: LocalGpu | None = None) -> None:
        """Find the GPU and the package; nothing of the package is loaded yet.

        Args:
            gpu: The product name, vendor's words optional.
            options: How plans are built; a quarter of the GPU's memory is the default workspace. The builder has one level of optimization
                and keeps no times of kernels, since those are chosen where a plan runs.
            local: This machine's GPU, where it is the one that is built for.

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
        self._local = local
        memory = _WORKSPACE_BYTES if self._gpu is None else int(self._gpu.memory_gb * 2**30 / 4)
        given = BuildOptions() if options is None else options
        self._options = given if given.workspace_bytes is not None else dataclasses.replace(given, workspace_bytes=memory)

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
        """FP16 baseline; INT8, FP8 where the GPU has it, INT4 weights; latency measured where the GPU is here, else predicted."""
        eligible = tuple(precision for precision in LOW_PRECISIONS if self._gpu is None or self._gpu.has(precision))
        return Capabilities(
            TARGET,
            Precision.FP16,
            eligible,
            TENSORRT_SCHEME,
            TensorRtDialect(),
            Source.PREDICTED if self._local is None else Source.MEASURED,
            kernel_times=Source.PREDICTED,  # on a GPU too: kernels are those of the build
            parallel_runs=self._local is None,
            has_own_parser=True,
            builds_are_dear=True,
            engine_name="engine.plan",
            builder=BUILDER if self._local is None else BUILDER_HERE,
            is_own_baseline=False,
            compute_capability=None if self._gpu is None else self._gpu.compute_capability,
            int8_costs={"Conv": _SECOND_KERNEL},
            expected_ms=None if self._gpu is None else functools.partial(expected_milliseconds, gpu=self._gpu),
            conversion_ms=typical_conversion_ms(None) if self._gpu is None else self._gpu.conversion_ms,
            least_gain=MIN_GAIN if self._gpu is None or self._local is not None else self._gpu.error,
        )

    def refused(self, explicit: Path) -> tuple[RefusedNode, ...]:
        """Return the nodes that the parser of TensorRT-RTX does not take, or that its builder has no kernel for although it does."""
        nodes = onnx.load_model(explicit, load_external_data=False).graph.node
        without = tuple(RefusedNode(node.name, node.op_type, "it has no kernel for it") for node in nodes if node.op_type in _NO_KERNEL)
        return without or refused_nodes(load_tensorrt_rtx(), explicit)

    def build(
        self,
        explicit: Path,
        output: Path,
        *,
        shapes: Mapping[str, ShapeRange] | None = None,
        values: Mapping[str, ValueRange] | None = None,
        profiles: Sequence[Mapping[str, ShapeRange]] = (),
        on_progress: Callable[[float, str], None] = lambda share, phase: None,
    ) -> Engine:
        """Build the plan of an explicit model and write it to ``output``, its kernels beside it; on failure nothing is left there.

        Args:
            explicit: A strongly typed model in the TensorRT dialect.
            output: The plan's file.
            shapes: Sizes of each dynamic input.
            values: Of each small input of integers, of which those count that set sizes.
            profiles: Not for this target.
            on_progress: Is told the share done (0 to 1) and the builder's phase; what it raises ends the build.

        Raises:
            BuildError: The model cannot be read, parsed or built.
        """
        _require_readable(explicit)
        trt = load_tensorrt_rtx()
        plan = build_plan(
            trt,
            explicit,
            self._options,
            shapes=shapes or {},
            values=values or {},
            configure=functools.partial(self._configure, trt),
            also_at_opt=True,
            on_progress=on_progress,
        )
        found = kernels_from_messages(text for _, text in plan.log)
        at_opt = found if plan.log_at_opt is plan.log else kernels_from_messages(text for _, text in plan.log_at_opt)
        beside: tuple[Path, ...] = ()
        listed = {"explicit": explicit.name, "kernels_at_opt": json_from_value(at_opt)}
        kernels = output.with_name(output.name + KERNELS_SUFFIX)
        try:
            write_atomically(kernels, json.dumps(listed).encode())
            write_atomically(output, plan.data)
            if self._options.strip_weights:
                beside = (note_weights(output, explicit),)
        except BaseException:
            for left in (output, kernels, *beside):
                left.unlink(missing_ok=True)
            raise
        return Engine(output, (kernels, *beside), len(plan.data), found, at_opt)

    def open(self, engine: Path, *, threads: int) -> Runner:
        """Return a runner of the plan on the GPU; without one what stands for it: its explicit model, which lies beside it.

        Raises:
            BuildError: The plan's list of kernels is not beside it, or the GPU's runtime cannot load it.
        """
        if self._local is not None:
            return self._local.open(engine)
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected at least 1")
        return SimulatedPlan(engine, listed_kernels(engine), threads)

    def timings(self, runners: Mapping[str, Runner], feeds: Mapping[str, NDArray[np.generic]], plan: TimingPlan) -> Mapping[str, Timing]:
        """Return the GPU time of each plan; without the GPU what the roofline predicts at the sizes ``opt``: no runs, no spread.

        Raises:
            UnsupportedTargetError: No GPU was named.
            EngineError: A kernel's time cannot be told, the GPU stayed in use, or an engine failed.
        """
        if self._local is not None:
            return self._local.timings(runners, feeds, plan)
        found = {name: self._predicted(runner) for name, runner in runners.items()}
        return {name: Timing(latency.ms, 0.0, 0.0, 0, (latency.ms,)) for name, latency in found.items()}

    def tensors(self, engine: Path) -> EngineTensors | None:
        """Return None: Triton loads no plan of TensorRT-RTX."""
        return None

    def environment(self) -> dict[str, object]:
        """Return the GPU and the builder's version, and how latencies came about: the conditions of timing, or the prediction's range."""
        if self._local is not None:
            return {"tensorrt_rtx": importlib.metadata.version("tensorrt-rtx-cu13"), **self._local.environment()}
        return {
            "gpu": self.gpu.name,
            "compute_capability": ".".join(map(str, self.gpu.compute_capability)),
            "tensorrt_rtx": importlib.metadata.version("tensorrt-rtx-cu13"),
            "clock": "none: latencies are predicted",
            "prediction_error": self.gpu.error,
        }

    def kernel_times(
        self, engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, threads: int, scratch: Path
    ) -> tuple[KernelTime, ...]:
        """Return the kernels as predicted at the sizes ``opt``, on a GPU too: the list is the build's. The other arguments are not needed.

        Raises:
            BuildError: The list of kernels is not beside the engine.
            UnsupportedTargetError: No GPU was named.
            EngineError: A kernel's time cannot be told.
        """
        kernels = listed_kernels(engine).kernels_at_opt
        times = kernel_milliseconds(kernels, self.gpu)
        return tuple(KernelTime(kernel.nodes, milliseconds) for kernel, milliseconds in zip(kernels, times, strict=True))

    def _predicted(self, runner: Runner) -> PredictedLatency:
        if not isinstance(runner, SimulatedPlan):
            raise TypeError(f"found a {type(runner).__name__}, expected a runner that this target opened")
        return runner.predicted(self.gpu)

    def _configure(self, trt: ModuleType, config: Any) -> None:
        if self._gpu is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, "SM{}{}".format(*self._gpu.compute_capability)), 0)


def load_tensorrt_rtx() -> ModuleType:
    """Return the package.

    Raises:
        UnsupportedTargetError: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as exc:
        raise UnsupportedTargetError(
            f"target: found no usable tensorrt_rtx package ({exc}), expected it for the target 'tensorrt-rtx'",
            fix="install onnx-trt-optimizer[rtx], which needs Linux on x86-64 or arm64",
        ) from exc


def _require_readable(explicit: Path) -> None:
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
