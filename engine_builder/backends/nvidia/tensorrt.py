"""The target ``tensorrt``: plans built for, timed on and checked on the GPU of this machine.

A plan runs on the TensorRT version and GPU type that it was built with, unless built to be compatible. Not yet run on a GPU: in the tests
the builder of ``tensorrt_rtx`` builds, a runtime that only pretends runs, and all names are checked against the real bindings.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from calibration.number_formats.precision import TENSORRT_SCHEME, Precision
from engine_builder.backends.atomic_file import write_atomically
from engine_builder.backends.base import Capabilities, Engine, RefusedNode, Runner, Source
from engine_builder.backends.build_knobs import knobs_from_json
from engine_builder.backends.build_options import CACHE_SUFFIX, BuildOptions
from engine_builder.backends.engine_tensors import EngineTensors
from engine_builder.backends.gpu.catalogue import gpu_by_name, typical_conversion_ms
from engine_builder.backends.gpu.cuda_runtime import CudaDevice, CudaRuntime
from engine_builder.backends.gpu.devices import open_cuda
from engine_builder.backends.gpu.lock import gpu_lock
from engine_builder.backends.gpu.state import driver_version
from engine_builder.backends.kernels import KernelTime
from engine_builder.backends.nvidia.inspector import kernels_from_inspector, nodes_in_name
from engine_builder.backends.nvidia.libraries.lean_runtime import WHY_NOT, has_lean_runtime, load_lean_runtime
from engine_builder.backends.nvidia.libraries.plugins import plugin_libraries
from engine_builder.backends.nvidia.local_gpu import LocalGpu
from engine_builder.backends.nvidia.network_build import build_plan
from engine_builder.backends.nvidia.parser import refused_nodes
from engine_builder.backends.nvidia.runner import TensorRtRunner
from engine_builder.backends.nvidia.stripped.refit import note_weights
from engine_builder.backends.nvidia.tensorrt_api import OLDEST_WITH_ROUTES, installed_version, load_tensorrt
from engine_builder.backends.triton_platform import TritonPlatform
from engine_builder.config.builder_options import BuilderConfig, BuilderSupport
from engine_builder.config.config import ShapeRange
from engine_builder.config.value_range import ValueRange
from engine_builder.errors import UnsupportedTargetError
from engine_builder.qdq.dialects.tensorrt import LOW_PRECISIONS, TensorRtDialect
from engine_builder.qdq.rules.target_placement import Placement
from engine_builder.timing import Timing, TimingPlan

OLDEST_FOR_INT8 = (7, 5)  # of compute capabilities; TensorRT 11 runs on none before it
PROFILED_RUNS = 24
_LAYERS_SUFFIX = ".layers.json"


class TensorRtBackend:
    """Builds and runs engines on the first visible GPU, which is opened when first needed."""

    def __init__(
        self,
        compute_capability: tuple[int, int] | None = None,
        *,
        gpu: str | None = None,
        options: BuildOptions | None = None,
        load: Callable[[], ModuleType] = load_tensorrt,
        open_gpu: Callable[[], CudaRuntime] = open_cuda,
    ) -> None:
        """Remember how to build.

        Args:
            compute_capability: Of the GPU, where known; what it lacks is then left out of the capabilities.
            gpu: Name of the GPU, where known: what a conversion takes follows from its memory's bandwidth.
            options: How engines are built; timing caches are kept one per GPU type and version.
            load: Returns the module ``tensorrt``.
            open_gpu: Opens the GPU.

        Raises:
            UnsupportedTargetError: The GPU is too old for TensorRT.
        """
        if compute_capability is not None and compute_capability < OLDEST_FOR_INT8:
            found, oldest = _dotted(compute_capability), _dotted(OLDEST_FOR_INT8)
            raise UnsupportedTargetError(
                f"target 'tensorrt': the GPU has compute capability {found}, expected {oldest} or newer",
                fix="use a GPU of the Turing generation (T4) or later",
            )
        self._compute_capability = compute_capability
        self._conversion_ms = _conversion_ms(gpu, compute_capability)
        self._options = options if options is not None else BuildOptions()
        self._local = LocalGpu(load, open_gpu)

    @property
    def capabilities(self) -> Capabilities:
        """FP16 baseline; INT8 and INT4 weights everywhere, FP8 where the GPU has it or is not known yet."""
        known = self._compute_capability
        eligible = tuple(precision for precision in LOW_PRECISIONS if precision.runs_on(known))
        return Capabilities(
            "tensorrt",
            Precision.FP16,
            eligible,
            TENSORRT_SCHEME,
            TensorRtDialect(Placement.TENSORRT),
            Source.MEASURED,
            has_own_parser=True,
            builds_are_dear=True,
            engine_name="engine.plan",
            triton=TritonPlatform.TENSORRT,
            builder=_builder_support(),
            has_plugins=bool(plugin_libraries(os.environ)),
            is_own_baseline=False,
            has_build_routes=True,
            is_repeatable=False,
            profiles_layers=True,
            compute_capability=known,
            conversion_ms=self._conversion_ms,
        )

    def refused(self, explicit: Path) -> tuple[RefusedNode, ...]:
        """Return the nodes that TensorRT's parser does not take.

        Raises:
            BuildError: TensorRT does not start.
        """
        return refused_nodes(self._local.module, explicit)

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
        """Build the plan with the kernel times of earlier builds, write it, and load it once to prove that it runs here.

        No other job builds or times on the GPU meanwhile. What its inspector says of layers lies beside it, as it is.

        Args:
            explicit: The explicit model; its external data lies beside it.
            output: Where the plan goes; in the model's folder where plans are built without their weights, which then are the model's.
            shapes: Of each input with a dynamic axis: smallest, most used and largest.
            values: Of each small input of integers, of which those count that set sizes.
            profiles: Sizes as in ``shapes`` of each optimization profile; empty: one profile, of ``shapes``.
            on_progress: Is told the share done (0 to 1) and the builder's phase; what it raises ends the build.

        Raises:
            BuildError: TensorRT refused the model, or what it built does not load.
            EngineError: Another job holds the GPU for too long.
            UnsupportedTargetError: A version compatible plan is asked for, and the lean runtime is not installed.
        """
        trt, gpu = self._local.module, self._local.cuda
        if self._options.version_compatible:
            load_lean_runtime(str(trt.__version__))
        folder = self._options.timing_caches
        saved = None if folder is None else timing_cache_path(folder, gpu.device, str(trt.__version__), driver_version())
        with gpu_lock(gpu.device.uuid, on_wait=lambda holder: on_progress(0.0, f"waiting for the GPU, which process {holder} uses")):
            plan = build_plan(
                trt,
                explicit,
                self._options,
                shapes=shapes or {},
                values=values or {},
                profiles=profiles,
                timing_cache=saved.read_bytes() if saved is not None and saved.exists() else b"",
                on_progress=on_progress,
            )
        if saved is not None and plan.timing_cache:
            saved.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(saved, plan.timing_cache)
        layers = output.with_name(output.name + _LAYERS_SUFFIX)
        beside: tuple[Path, ...] = ()
        try:
            write_atomically(output, plan.data)
            if self._options.strip_weights:
                beside = (note_weights(output, explicit),)
            runner = self._local.open(output, weight_budget_bytes=self._options.weight_budget_bytes)
            try:
                said = runner.layer_information({name: sizes.opt for name, sizes in (shapes or {}).items()})
                profile = runner.profile
            finally:
                runner.close()
            write_atomically(layers, said.encode())
        except BaseException:
            for left in (output, layers, *beside):
                left.unlink(missing_ok=True)
            raise
        knobs = knobs_from_json(plan.knobs)
        return Engine(output, beside, output.stat().st_size, kernels_from_inspector(said, profile), layers=layers, knobs=knobs)

    def open(self, engine: Path, *, threads: int) -> TensorRtRunner:
        """Return a runner on the GPU; ``threads`` is for targets that run on the CPU.

        Raises:
            BuildError: TensorRT cannot load the file, or it is a model and not an engine.
        """
        return self._local.open(engine, weight_budget_bytes=self._options.weight_budget_bytes)

    def timings(self, runners: Mapping[str, Runner], feeds: Mapping[str, NDArray[np.generic]], plan: TimingPlan) -> Mapping[str, Timing]:
        """Return the GPU time of each engine, in turns, by CUDA events.

        Raises:
            EngineError: The GPU stayed in use, or an engine failed.
        """
        return self._local.timings(runners, feeds, plan)

    def tensors(self, engine: Path) -> EngineTensors | None:
        """Return the plan's inputs, outputs and profile.

        Raises:
            BuildError: TensorRT cannot load it.
            EngineError: A tensor has a type that no array can hold.
        """
        runner = self.open(engine, threads=1)
        try:
            return runner.tensors()
        finally:
            runner.close()

    def environment(self) -> dict[str, object]:
        """Return the GPU, the version of TensorRT and, once engines were timed, under which conditions."""
        return {"tensorrt": str(self._local.module.__version__), **self._local.environment()}

    def kernel_times(
        self, engine: Path, feeds: Mapping[str, NDArray[np.generic]], *, threads: int, scratch: Path
    ) -> tuple[KernelTime, ...]:
        """Return the kernels as TensorRT's profiler times them, by the nodes that they run."""
        runner = self.open(engine, threads=threads)
        try:
            with gpu_lock(self._local.cuda.device.uuid):
                times = runner.layer_times(feeds, runs=PROFILED_RUNS)
            nodes = {kernel.name: kernel.nodes for kernel in runner.kernels()}
            return tuple(_kernel_time(name, nodes.get(name, nodes_in_name(name)), spent) for name, spent in times.items())
        finally:
            runner.close()


def _kernel_time(layer: str, nodes: tuple[str, ...], spent: Sequence[float]) -> KernelTime:
    return KernelTime(nodes, float(np.median(spent)), layer=layer, mean_ms=float(np.mean(spent)), runs=len(spent))


def timing_cache_path(folder: Path, device: CudaDevice, version: str, driver: str | None) -> Path:
    """Return where the timing cache of a GPU type, TensorRT version and driver is kept; None: a driver that does not say its version."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", device.name).strip("-").lower()
    said = re.sub(r"[^A-Za-z0-9.]+", "-", driver or "unknown")
    return folder / f"{name}-cc{_dotted(device.compute_capability)}-tensorrt{version}-driver{said}{CACHE_SUFFIX}"


def _builder_support() -> BuilderSupport:
    keys = frozenset(item.name for item in dataclasses.fields(BuilderConfig))
    version = installed_version()
    lacking = {} if has_lean_runtime() else {"version_compatible": WHY_NOT}
    if version is not None and version < OLDEST_WITH_ROUTES:
        lacking["build_routes"] = f"TensorRT {_dotted(version)} is installed, and build routes came with {_dotted(OLDEST_WITH_ROUTES)}"
    return BuilderSupport(keys - lacking.keys(), lacking=lacking)


def _conversion_ms(gpu: str | None, compute_capability: tuple[int, int] | None) -> float:
    try:
        return typical_conversion_ms(compute_capability) if gpu is None else gpu_by_name(gpu).conversion_ms
    except UnsupportedTargetError:  # a GPU that is not listed
        return typical_conversion_ms(compute_capability)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
