"""The targets that engines can be built for: one literal table, a row a target, whose modules are imported when it is first asked for."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine_builder.backends.base import Backend
from engine_builder.backends.build_options import BuildOptions
from engine_builder.backends.gpu.catalogue import Gpu, gpu_by_name, known_gpus
from engine_builder.backends.gpu.devices import has_cuda_package
from engine_builder.backends.gpu.visible_gpu import VisibleGpu, first_visible_gpu
from engine_builder.errors import UnsupportedTargetError
from engine_builder.workspace.workspace import StageContext


@dataclass(frozen=True, slots=True)
class Target:
    """A row of the table: how a backend is made, and what is known of the target before, whether or not its packages are here.

    All else is asked of the backend's ``capabilities``.
    """

    make: Callable[[str | None, BuildOptions], Backend]  # of the GPU's name; raises UnsupportedTargetError
    takes_gpu: bool = False  # whether the name of a GPU means something to it
    needs_gpu_name: Callable[[], bool] = lambda: False  # whether the user must give one
    gpus: Callable[[], tuple[str, ...]] = tuple  # names of the GPUs that can be built for without being here
    opens_gpu: Callable[[str | None], bool] = lambda gpu: False  # whether engines for the GPU run on that of this machine


def _onnxruntime_cpu(gpu: str | None, options: BuildOptions) -> Backend:
    from engine_builder.backends.onnxruntime.cpu import OrtCpuBackend

    return OrtCpuBackend()


def _tensorrt(gpu: str | None, options: BuildOptions) -> Backend:
    from engine_builder.backends.nvidia.tensorrt import TensorRtBackend
    from engine_builder.backends.nvidia.tensorrt_api import require_tensorrt

    require_tensorrt()
    here = gpu_here()
    if here is not None:
        return TensorRtBackend(here.compute_capability, gpu=here.name, options=options)
    return TensorRtBackend(None if gpu is None else gpu_by_name(gpu).compute_capability, gpu=gpu, options=options)


def _tensorrt_rtx(gpu: str | None, options: BuildOptions) -> Backend:
    from engine_builder.backends.nvidia.local_gpu import LocalGpu
    from engine_builder.backends.nvidia.tensorrt_rtx import TensorRtRtxBackend, load_tensorrt_rtx

    if not _is_rtx_here(gpu):
        return TensorRtRtxBackend(gpu, options=options)
    return TensorRtRtxBackend(rtx_gpu_here(), options=options, local=LocalGpu(load_tensorrt_rtx))


def _is_rtx_here(gpu: str | None) -> bool:
    here = rtx_gpu_here()
    return here is not None and (gpu is None or gpu_by_name(gpu).name == here)


@functools.cache
def gpu_here() -> VisibleGpu | None:
    """Return the GPU that stages open, which have this process's CUDA_... variables; asked once."""
    return first_visible_gpu()


@functools.cache
def rtx_gpu_here() -> str | None:
    """Return the name of the GPU that stages open if plans of TensorRT-RTX can be timed on it, which takes a CUDA package too."""
    here = gpu_here() if has_cuda_package() else None
    if here is None:
        return None
    try:
        found = gpu_by_name(here.name)
    except UnsupportedTargetError:
        return None
    return found.name if found in _rtx_gpus() else None


def _rtx_gpus() -> tuple[Gpu, ...]:
    from engine_builder.backends.nvidia.tensorrt_rtx import supported_gpus

    return supported_gpus()


Targets = Mapping[str, Target]
BACKENDS: Targets = {
    "onnxruntime-cpu": Target(_onnxruntime_cpu),
    "tensorrt": Target(_tensorrt, takes_gpu=True, opens_gpu=lambda gpu: True),
    "tensorrt-rtx": Target(
        _tensorrt_rtx,
        takes_gpu=True,
        needs_gpu_name=lambda: rtx_gpu_here() is None,
        gpus=lambda: tuple(gpu.name for gpu in _rtx_gpus()),
        opens_gpu=_is_rtx_here,
    ),
}


@dataclass(frozen=True, slots=True)
class TargetContext(StageContext):
    """The context of a stage whose job may be for targets of another table: what a program gives that brings a backend of its own."""

    targets: Targets = field(default_factory=lambda: BACKENDS)


def targets_of(context: StageContext) -> Targets:
    """Return the targets that a stage knows."""
    return context.targets if isinstance(context, TargetContext) else BACKENDS


def opens_gpu(target: str, gpu: str | None) -> bool:
    """Return whether the engines of a job run on this machine's GPU."""
    return target in BACKENDS and BACKENDS[target].opens_gpu(gpu)


def gpu_alike(target: str, gpu: str | None, table: Targets = BACKENDS) -> str | None:
    """Return the name under which stages that only read the model are asked about a GPU: one for all of its compute capability.

    What they find is then the same for each of these, and measured once. Where this machine has a GPU, it is the name that was given.

    Args:
        target: One of the table.
        gpu: The GPU's product name.
        table: The targets that there are.
    """
    if gpu is None or not target_row(target, table).takes_gpu or gpu_here() is not None:
        return gpu
    try:
        wanted = gpu_by_name(gpu)
    except UnsupportedTargetError:  # a GPU that is not listed
        return gpu
    return next(one.name for one in known_gpus() if one.compute_capability == wanted.compute_capability)


def targets() -> list[dict[str, object]]:
    """Return what this deployment can build for: target, precisions (the baseline's first), latency_source and gpus of each."""
    return [_described(target) for target in BACKENDS if why_not(target) is None]


@functools.cache
def why_not(target: str) -> str | None:
    """Return why this deployment cannot build for a target, None where it can."""
    try:
        backend_for(target)
    except UnsupportedTargetError as error:
        return error.detail
    return None


def backend_for(target: str, gpu: str | None = None, options: BuildOptions | None = None, *, table: Targets = BACKENDS) -> Backend:
    """Return the backend of a target.

    Args:
        target: One of the table.
        gpu: The GPU's product name, for a target that builds for GPUs that are not in this machine.
        options: How engines are built; who builds none does without.
        table: The targets that there are.

    Raises:
        UnsupportedTargetError: There is no such target, it lacks a package, or it cannot build for the GPU.
    """
    return target_row(target, table).make(gpu, BuildOptions() if options is None else options)


def target_row(target: str, table: Targets = BACKENDS) -> Target:
    """Return the row of a target.

    Raises:
        UnsupportedTargetError: There is no such target.
    """
    if target not in table:
        near = difflib.get_close_matches(target, table, n=1)
        raise UnsupportedTargetError(
            f"target: {target!r} is unknown here, expected one of {', '.join(sorted(table))}",
            fix=f"use {near[0]!r}" if near else "choose a target that GET /v1/targets lists",
        )
    return table[target]


def _described(target: str) -> dict[str, object]:
    capabilities = backend_for(target).capabilities
    return {
        "target": capabilities.target,
        "precisions": [precision.value for precision in (capabilities.baseline, *capabilities.low_precisions)],
        "latency_source": capabilities.latency_source.value,
        "gpus": list(BACKENDS[target].gpus()),
    }
